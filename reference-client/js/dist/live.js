import { Emitter } from "./emitter.js";
/** Calls back with what the query reads now, and again whenever it reads otherwise. */
export function live(query, listener) {
    const heard = new Emitter();
    heard.add(listener);
    let last;
    let running = false;
    let again = false;
    let over = false;
    const refresh = async () => {
        // One read at a time; what changes meanwhile is read once more afterwards.
        if (running) {
            again = true;
            return;
        }
        running = true;
        try {
            do {
                again = false;
                const value = await query.read();
                if (over || (last && query.same(last.value, value)))
                    continue;
                last = { value };
                heard.emit(value);
            } while (again && !over);
        }
        catch (error) {
            if (!over)
                query.fail(error);
        }
        finally {
            running = false;
        }
    };
    const off = query.changes.add(collections => {
        if (query.concerns(collections))
            void refresh();
    });
    void refresh();
    return () => {
        over = true;
        off();
    };
}
