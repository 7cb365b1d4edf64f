// The sessions that this process has, one for each manager. They are opened when there is something to ask.
import type { ClientRequest } from 'node:http'
import { Session } from './session.js'
import { sessionPath, upgradeName } from './session-wire.js'

const openWithinMs = 2000
// A manager that has none may have them later: when it leads, or when there is no proxy in between.
const refusedForMs = 5000

interface Place {
  session: Session | undefined
  opening: Promise<Session | undefined> | undefined
  /** By performance.now(). */
  refusedUntil: number
}

export class SessionPool {
  readonly #send: (
    url: URL,
    method: string,
    headers: Record<string, string | number>,
  ) => ClientRequest
  readonly #places = new Map<string, Place>()

  constructor(
    send: (url: URL, method: string, headers: Record<string, string | number>) => ClientRequest,
  ) {
    this.#send = send
  }

  /** The one with the manager at `url`. Undefined: there is none, and a request of its own will do, or tell what is
   * wrong. */
  at(url: URL): Session | undefined | Promise<Session | undefined> {
    const { origin } = url
    let place = this.#places.get(origin)
    if (place === undefined) {
      place = { session: undefined, opening: undefined, refusedUntil: 0 }
      this.#places.set(origin, place)
    }
    if (place.session?.usable === true) return place.session
    if (place.opening === undefined && performance.now() < place.refusedUntil) return undefined
    place.opening ??= this.#open(url, place).finally(() => (place.opening = undefined))
    return place.opening
  }

  /** Requests that run in one are still answered. */
  retire(): void {
    for (const { session } of this.#places.values()) session?.retire()
  }

  #open(url: URL, place: Place): Promise<Session | undefined> {
    return new Promise((resolve) => {
      const refused = (): void => {
        place.refusedUntil = performance.now() + refusedForMs
        resolve(undefined)
      }
      const headers = { connection: 'Upgrade', upgrade: upgradeName }
      const sent = this.#send(new URL(sessionPath, url), 'GET', headers)
      // Something in between may not understand.
      sent.setTimeout(openWithinMs, () => {
        refused()
        sent.destroy()
      })
      sent.on('error', () => resolve(undefined))
      sent.once('upgrade', (_response, socket, head) => {
        const session = new Session(socket, head)
        place.session = session
        socket.once('close', () => {
          if (place.session !== session) return
          place.session = undefined
          // The next one may be on its way already.
          if (place.opening === undefined) this.#places.delete(url.origin)
        })
        resolve(session)
      })
      sent.once('response', (response) => {
        // Its connection may serve the next request.
        response.resume()
        refused()
      })
      sent.end()
    })
  }
}
