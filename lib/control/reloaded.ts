// What is read from files and follows them: keys and certificates are replaced while a manager runs.
import { statSync } from 'node:fs'

export interface ReloadedOptions<T> {
  paths: readonly string[]
  read: () => T
  /** The files are there but cannot be used: once for each state of the files. */
  failed: (error: unknown) => void
}

export class Reloaded<T> {
  readonly #options: ReloadedOptions<T>
  #signature: string
  #failure = ''
  #value: T

  /** Throws when the first reading fails: there is nothing to fall back on yet. */
  constructor(options: ReloadedOptions<T>) {
    this.#options = options
    // Before the reading: a change in between is then seen as one.
    this.#signature = signatureOf(options.paths)
    this.#value = options.read()
  }

  /** As of now. A stat() a file: there is no time in which a change has not been noticed yet. When
   * the files cannot be used, what was read last is kept. */
  get value(): T {
    const signature = signatureOf(this.#options.paths)
    if (signature === this.#signature) return this.#value
    try {
      this.#value = this.#options.read()
      this.#signature = signature
    } catch (error) {
      // Tried again at the next look: half of the files may be written yet.
      if (signature !== this.#failure) this.#options.failed(error)
      this.#failure = signature
    }
    return this.#value
  }
}

function signatureOf(paths: readonly string[]): string {
  return paths
    .map((path) => {
      try {
        const { dev, ino, size, mtimeNs, ctimeNs } = statSync(path, { bigint: true })
        return [dev, ino, size, mtimeNs, ctimeNs].join(':')
      } catch (error) {
        return (error as NodeJS.ErrnoException).code
      }
    })
    .join()
}
