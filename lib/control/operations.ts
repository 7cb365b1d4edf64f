// What a manager can be asked. Each operation is declared once and answers whoever asks, with an HTTP
// request or in a session (session-wire.ts).
import type { IncomingHttpHeaders } from 'node:http'
import type { Socket } from 'node:net'
import { Type, type Static, type TSchema } from 'typebox'
import type { EventStream } from './event-stream.js'
import { watchCaller } from './caller.js'
import type { ControlApp } from './server.js'

/** Who asks, and for what. A request of Fastify is one. */
export interface Asker {
  readonly method: string
  readonly routeOptions: { readonly url?: string | undefined }
  readonly headers: IncomingHttpHeaders
  /** Address that it comes from. */
  readonly ip: string
  /** Name that the manager was asked under. */
  readonly hostname: string
  readonly socket: Socket
}

export interface Call<Params = unknown, Query = unknown, Body = unknown> {
  readonly asker: Asker
  readonly params: Params
  readonly query: Query
  readonly body: Body
  /** Aborts when nobody waits for the answer any more. For answers that may take their time: meanwhile
   * the connection may be silent. */
  caller(): AbortSignal
  /** Makes the answer a stream of events; there is no other answer then. */
  events(): EventStream
}

/** Without an answer, what is returned is for nobody. */
type Answer<A> = A extends TSchema ? Static<A> : unknown

export interface Operation<
  Params extends TSchema = TSchema,
  Query extends TSchema = TSchema,
  Body extends TSchema = TSchema,
  A extends TSchema | undefined = TSchema | undefined,
> {
  readonly method: 'GET' | 'POST' | 'PUT' | 'DELETE'
  /** With parameters as `:name`. */
  readonly path: string
  readonly summary: string
  readonly params?: Params
  readonly query?: Query
  readonly body?: Body
  /** Nothing: it is done, or answers with events. */
  readonly answer?: A
  /** Default: 200 with an answer, else 204. */
  readonly status?: 200 | 201
  readonly answersEvents?: boolean
  /** Names of schemes, for the description. */
  readonly security?: string
  /** Throws when whoever asks may not: before anything of the body is looked at. */
  readonly admit?: (asker: Asker) => unknown
  handle(call: Call<Static<Params>, Static<Query>, Static<Body>>): Answer<A> | Promise<Answer<A>>
}

const done = Type.Null({ description: 'done' })

export function statusOf({ status, answer }: Operation): number {
  return status ?? (answer === undefined ? 204 : 200)
}

/** As a route of its own. */
export function addRoute(
  app: ControlApp,
  operation: Operation,
  eventStream: (reply: Parameters<typeof watchCaller>[1]) => EventStream,
): void {
  const { method, path, summary, params, query, body, answer, security, admit } = operation
  const status = statusOf(operation)
  app.route({
    method,
    url: path,
    schema: {
      summary,
      ...(params && { params }),
      ...(query && { querystring: query }),
      ...(body && { body }),
      ...(security !== undefined && { security: [{ [security]: [] }] }),
      ...(operation.answersEvents !== true && { response: { [status]: answer ?? done } }),
    },
    ...(admit && {
      onRequest: (request, _reply, proceed) => {
        admit(request)
        proceed()
      },
    }),
    handler: async (request, reply) => {
      const result: unknown = await operation.handle({
        asker: request,
        params: request.params,
        query: request.query,
        body: request.body,
        caller: () => watchCaller(request, reply),
        events: () => eventStream(reply),
      })
      // Events are not a reply of Fastify's.
      if (reply.sent) return reply
      return reply.status(status).send(answer === undefined ? null : result)
    },
  })
}

/** Finds operations by what a request in a session names. */
export class OperationTable {
  /** By method and number of segments. */
  readonly #operations = new Map<string, { operation: Operation; segments: string[] }[]>()

  add(operation: Operation): void {
    const segments = operation.path.split('/')
    const key = `${operation.method} ${segments.length}`
    const others = this.#operations.get(key) ?? []
    this.#operations.set(key, [...others, { operation, segments }])
  }

  /** Undefined when there is none; parameters are not checked yet. */
  find(
    method: string,
    path: string,
  ): { operation: Operation; params: Record<string, string> } | undefined {
    const given = path.split('/')
    for (const { operation, segments } of this.#operations.get(`${method} ${given.length}`) ?? []) {
      const params: Record<string, string> = {}
      const fits = segments.every((segment, index) => {
        const value = given[index]!
        if (!segment.startsWith(':')) return segment === value
        params[segment.slice(1)] = value
        return true
      })
      if (fits) return { operation, params }
    }
    return undefined
  }
}
