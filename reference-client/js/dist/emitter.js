/** Listeners of one kind of event. A listener that throws does not keep the others from hearing. */
export class Emitter {
    #listeners = new Set();
    add(listener) {
        this.#listeners.add(listener);
        return () => void this.#listeners.delete(listener);
    }
    emit(value) {
        for (const listener of [...this.#listeners]) {
            try {
                listener(value);
            }
            catch (error) {
                reportError(error);
            }
        }
    }
    clear() {
        this.#listeners.clear();
    }
}
/** Errors of the application's own callbacks go where uncaught errors go. */
function reportError(error) {
    queueMicrotask(() => {
        throw error;
    });
}
