// One URL or several of managers that stand for each other: `http://a:7070,http://b:7070`.
import { invalidArgument, RfaasError } from '../errors.js'

/** Origins, in the order given, each once. `field` is the option that they came from. */
export function parseUrls(field: string, text: string): string[] {
  return [...new Set(text.split(',').map((one) => parseUrl(field, one.trim())))]
}

export function parseUrl(field: string, text: string): string {
  const url = URL.canParse(text) ? new URL(text) : undefined
  if (url?.protocol === 'http:' || url?.protocol === 'https:') return url.origin
  throw invalidArgument(field, text, 'a URL such as http://10.0.0.5:7070')
}

/** Which of them is asked: the one that answered last. */
export class ManagerUrls {
  readonly all: readonly string[]
  #place = 0

  constructor(urls: readonly string[]) {
    this.all = urls
  }

  get current(): string {
    return this.all[this.#place]!
  }

  /** `url` did not answer: unless somebody has noticed before, the next one is asked from now on. */
  passOver(url: string): void {
    if (url === this.current) this.#place = (this.#place + 1) % this.all.length
  }
}

/** It cannot be reached, does not answer, or cannot serve now: another one may. */
export function isAway(error: unknown): boolean {
  return error instanceof RfaasError && error.code === 'ERR_RFAAS_UNAVAILABLE'
}
