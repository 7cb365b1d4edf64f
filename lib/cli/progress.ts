// How far long work is: one line that changes on a terminal, a line now and then elsewhere.
import { formatDuration } from '../units.js'

const everyMs = { terminal: 200, elsewhere: 30_000 }

export class Progress {
  readonly #stream = process.stderr
  readonly #began = performance.now()
  #shownAt = performance.now()
  #open = false

  /** `share`: of all of it, from 0 to 1. */
  show(what: string, share: number): void {
    const now = performance.now()
    const { isTTY } = this.#stream
    if (now - this.#shownAt < (isTTY ? everyMs.terminal : everyMs.elsewhere)) return
    this.#shownAt = now
    const leftMs = share > 0.01 ? ((now - this.#began) / share) * (1 - share) : undefined
    const left =
      leftMs === undefined ? '' : `, ${formatDuration(Math.round(leftMs / 1000) * 1000)} left`
    const line = `${what}, ${Math.floor(share * 100)} %${left}`
    this.#stream.write(isTTY ? `\r\x1b[K${line}` : `${line}\n`)
    this.#open = isTTY
  }

  end(): void {
    if (this.#open) this.#stream.write('\r\x1b[K')
    this.#open = false
  }
}
