// Server-sent events, the side that reads them.
import { protocolError } from './answer.js'

const maxEventBytes = 1024 * 1024

export interface ServerEvent {
  event: string
  /** The parsed JSON of the event: to be checked by whoever knows its schema. */
  data: unknown
}

/** Incremental parser of text/event-stream; holds at most one event of `maxEventBytes`. */
export class EventParser {
  readonly #name: string
  readonly #decoder = new TextDecoder()
  #rest = ''
  #event = ''
  #data: string[] = []
  #size = 0

  constructor(name: string) {
    this.#name = name
  }

  *push(chunk: Uint8Array): Generator<ServerEvent> {
    this.#rest += this.#decoder.decode(chunk, { stream: true })
    // A carriage return at the very end may be half of a CRLF: it waits for the next chunk.
    const lines = this.#rest.split(/\r\n|\n|\r(?!$)/)
    this.#rest = lines.pop() ?? ''
    for (const line of lines) {
      const event = this.#line(line)
      if (event !== undefined) yield event
    }
    if (this.#size + this.#rest.length > maxEventBytes) {
      throw protocolError(this.#name, `an event longer than ${maxEventBytes} bytes`)
    }
  }

  #line(line: string): ServerEvent | undefined {
    if (line === '') return this.#dispatch()
    const colon = line.indexOf(':')
    const field = colon === -1 ? line : line.slice(0, colon)
    const value = colon === -1 ? '' : line.slice(colon + 1).replace(/^ /, '')
    if (field === 'event') this.#event = value
    if (field === 'data') {
      this.#data.push(value)
      this.#size += value.length
      if (this.#size > maxEventBytes) {
        throw protocolError(this.#name, `an event longer than ${maxEventBytes} bytes`)
      }
    }
    return undefined
  }

  #dispatch(): ServerEvent | undefined {
    const text = this.#data.join('\n')
    const event = this.#event === '' ? 'message' : this.#event
    const empty = this.#data.length === 0
    this.#event = ''
    this.#data = []
    this.#size = 0
    if (empty) return undefined
    try {
      return { event, data: JSON.parse(text) as unknown }
    } catch {
      throw protocolError(this.#name, `event ${event} with data that is not JSON`)
    }
  }
}
