// The client's way to the resource manager.
import type { Static, TSchema } from 'typebox'

import { request, type RequestOptions } from '../control/http.js'

export const defaultTimeoutMs = 10_000

export class ManagerLink {
  readonly url: string
  /** For each request. */
  readonly timeoutMs: number

  constructor(url: string, timeoutMs = defaultTimeoutMs) {
    this.url = url
    this.timeoutMs = timeoutMs
  }

  request<S extends TSchema>(
    path: string,
    options: RequestOptions & { schema: S },
  ): Promise<Static<S>>
  request(path: string, options?: RequestOptions): Promise<void>
  request(path: string, options: RequestOptions & { schema?: TSchema } = {}): Promise<unknown> {
    const { timeoutMs } = this
    return request(new URL(path, this.url).href, {
      timeoutMs,
      ...(options as RequestOptions & { schema: TSchema }),
    })
  }
}
