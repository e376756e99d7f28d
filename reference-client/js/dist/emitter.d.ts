import type { Unsubscribe } from "./types.js";
/** Listeners of one kind of event. A listener that throws does not keep the others from hearing. */
export declare class Emitter<T> {
    #private;
    add(listener: (value: T) => void): Unsubscribe;
    emit(value: T): void;
    clear(): void;
}
