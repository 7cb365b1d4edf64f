// What the manager has been asked and nobody waits for: a failure must not get lost, it would make the
// results wrong.

export class Work {
  #failure: Error | undefined

  track(work: Promise<unknown>): void {
    work.catch((error: unknown) => {
      this.#failure ??= error instanceof Error ? error : new Error(String(error))
    })
  }

  check(): void {
    if (this.#failure !== undefined) throw this.#failure
  }
}
