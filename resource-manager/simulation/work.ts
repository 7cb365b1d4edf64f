// What the manager has been asked and nobody waits for: a failure must not get lost, it would make the
// results wrong.

export class Work {
  #failure: unknown

  track(work: Promise<unknown>): void {
    work.catch((error: unknown) => (this.#failure ??= error))
  }

  check(): void {
    if (this.#failure !== undefined) throw this.#failure
  }
}
