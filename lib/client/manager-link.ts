// The client's way to the resource manager.
import type { Static, TSchema } from 'typebox'

import { request, type RequestOptions } from '../control/http.js'
import { isAway, ManagerUrls } from '../control/manager-urls.js'
import type { Transport } from '../control/transport.js'

export const defaultTimeoutMs = 10_000

export interface ManagerLinkOptions {
  /** API key. */
  key: string | undefined
  /** Also the way to the executor managers. */
  transport: Transport
  /** For each request. */
  timeoutMs: number | undefined
}

export class ManagerLink {
  readonly #managers: ManagerUrls
  readonly transport: Transport
  readonly timeoutMs: number
  readonly #key: string | undefined

  /** `urls` of managers that share a store. */
  constructor(urls: readonly string[], { key, transport, timeoutMs }: ManagerLinkOptions) {
    this.#managers = new ManagerUrls(urls)
    this.transport = transport
    this.timeoutMs = timeoutMs ?? defaultTimeoutMs
    this.#key = key
  }

  request<S extends TSchema>(
    path: string,
    options: RequestOptions & { schema: S },
  ): Promise<Static<S>>
  request(path: string, options?: RequestOptions): Promise<void>
  /** Of the manager that answered last; if it is away, of the next one. All requests are such that it does
   * no harm if two managers get them. */
  async request(
    path: string,
    options: RequestOptions & { schema?: TSchema } = {},
  ): Promise<unknown> {
    const { transport } = this
    const { all } = this.#managers
    const began = performance.now()
    const withinMs = options.timeoutMs ?? this.timeoutMs
    for (let left = all.length; ; left -= 1) {
      const url = this.#managers.current
      const remainingMs = withinMs - (performance.now() - began)
      try {
        return await request(new URL(path, url).href, {
          token: this.#key,
          transport,
          inSession: true,
          ...(options as RequestOptions & { schema: TSchema }),
          // One that only seems to be there must not use up the time of the others.
          timeoutMs: options.timeoutMs === undefined ? remainingMs / left : remainingMs,
        })
      } catch (error) {
        if (!isAway(error)) throw error
        this.#managers.passOver(url)
        if (left === 1 || performance.now() - began >= withinMs) throw error
      }
    }
  }

  /** Another one may take over for one that is away. */
  get several(): boolean {
    return this.#managers.all.length > 1
  }
}
