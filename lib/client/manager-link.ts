// The client's way to the resource manager.
import type { Static, TSchema } from 'typebox'

import { request, type RequestOptions } from '../control/http.js'
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
  readonly url: string
  readonly transport: Transport
  readonly timeoutMs: number
  readonly #key: string | undefined

  constructor(url: string, { key, transport, timeoutMs }: ManagerLinkOptions) {
    this.url = url
    this.transport = transport
    this.timeoutMs = timeoutMs ?? defaultTimeoutMs
    this.#key = key
  }

  request<S extends TSchema>(
    path: string,
    options: RequestOptions & { schema: S },
  ): Promise<Static<S>>
  request(path: string, options?: RequestOptions): Promise<void>
  request(path: string, options: RequestOptions & { schema?: TSchema } = {}): Promise<unknown> {
    const { transport, timeoutMs } = this
    return request(new URL(path, this.url).href, {
      token: this.#key,
      transport,
      timeoutMs,
      ...(options as RequestOptions & { schema: TSchema }),
    })
  }
}
