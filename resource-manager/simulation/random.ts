// Numbers that look random and are the same for the same seed (sfc32 by C. Doty-Humphrey, public domain).

export class Random {
  #a = 0
  #b = 0
  #c: number
  #d = 1

  constructor(seed: number) {
    this.#c = seed | 0
    for (let i = 0; i < 12; i += 1) this.next()
  }

  /** 0 and above, below 1. */
  next(): number {
    const sum = (this.#a + this.#b + this.#d) | 0
    this.#d = (this.#d + 1) | 0
    this.#a = this.#b ^ (this.#b >>> 9)
    this.#b = (this.#c + (this.#c << 3)) | 0
    this.#c = (((this.#c << 21) | (this.#c >>> 11)) + sum) | 0
    return (sum >>> 0) / 2 ** 32
  }

  /** Exponentially distributed. */
  exponential(mean: number): number {
    return -mean * Math.log(1 - this.next())
  }

  one<T>(of: readonly T[]): T {
    return of[Math.floor(this.next() * of.length)]!
  }
}
