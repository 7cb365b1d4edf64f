// The client side of the control plane: JSON requests and events, in a session with the manager or each
// as an HTTP request. What comes back is from another process: bounded, parsed, checked against its
// schema.
import { channel } from 'node:diagnostics_channel'
import type { IncomingMessage } from 'node:http'
import type { Static, TSchema } from 'typebox'
import { RfaasError } from '../errors.js'
import { errorFrom, protocolError, type Answer } from './answer.js'
import { Call, type CallOptions } from './call.js'
import { check } from './check.js'
import { EventParser, type ServerEvent } from './event-parser.js'
import type { SessionAnswer } from './session.js'

export type { CallOptions } from './call.js'
export { check, checkArgument } from './check.js'
export type { ServerEvent } from './event-parser.js'

// Servers send a comment every 15 s (server.ts): a stream silent for longer has lost its server.
const defaultIdleTimeoutMs = 45_000
// Whoever reads them is not heard from in between.
const mostUnreadEvents = 10_000

/** Hears of each answer: `{ method, path, status }`. */
const answers = channel('rfaas:answer')

export interface RequestOptions extends CallOptions {
  method?: 'GET' | 'HEAD' | 'POST' | 'PUT' | 'DELETE'
  /** Bytes go as they are (application/octet-stream), anything else as JSON. */
  body?: unknown
}

export interface EventsOptions extends CallOptions {
  /** Over HTTP: ends the stream with ERR_RFAAS_UNAVAILABLE when not even a comment came for so long. */
  idleTimeoutMs?: number
  /** Called once, when the stream is open. */
  onOpen?: () => void
}

/** The checked answer of a manager. Without a `schema` the answer's body is ignored. */
export async function request<S extends TSchema>(
  url: string,
  options: RequestOptions & { schema: S },
): Promise<Static<S>>
export async function request(url: string, options?: RequestOptions): Promise<void>
export async function request(
  url: string,
  options: RequestOptions & { schema?: TSchema } = {},
): Promise<unknown> {
  const method = options.method ?? 'GET'
  using call = new Call(method, url, options)
  const answer = await ask(call, method, options)
  if (answers.hasSubscribers) {
    answers.publish({ method, path: new URL(url).pathname, status: answer.status })
  }
  if (!isOk(answer)) throw errorFrom(call.name, answer)
  if (options.schema === undefined) return undefined
  if (answer.body === undefined) {
    throw protocolError(call.name, `${answer.status} with a body that is not JSON`)
  }
  return check(options.schema, answer.body, `the answer to ${call.name}`)
}

async function ask(call: Call, method: string, options: RequestOptions): Promise<Answer> {
  const { body, inSession = false } = options
  // Answers without a body, and bytes as they are, are HTTP's.
  if (inSession && method !== 'HEAD' && !(body instanceof Uint8Array)) {
    const answer = await call.askInSession(body)
    if (answer !== undefined) return answerOf(answer)
  }
  return readAnswer(call, await call.send(body))
}

async function readAnswer(call: Call, response: IncomingMessage): Promise<Answer> {
  const { statusCode: status = 0, statusMessage: reason = '' } = response
  const text = await call.text(response)
  return { status, reason, body: parseJson(text), empty: text === '' }
}

/** Events, in order. Ends when the manager ends them or `signal` aborts; throws ERR_RFAAS_UNAVAILABLE when it
 * cannot be reached or is gone. Leaving the loop ends them. */
export async function* events(
  url: string,
  options: EventsOptions = {},
): AsyncGenerator<ServerEvent, void, undefined> {
  using call = new Call('GET', url, options)
  try {
    if (options.inSession === true && (yield* eventsInSession(call, options))) return
    yield* eventsOverHttp(call, options)
  } catch (error) {
    if (options.signal?.aborted === true) return
    throw error instanceof RfaasError ? error : call.failure(error)
  }
}

/** Returns false when there is no session, and nothing was asked. */
async function* eventsInSession(
  call: Call,
  { onOpen }: EventsOptions,
): AsyncGenerator<ServerEvent, boolean, undefined> {
  const unread: ServerEvent[] = []
  let wake = (): void => undefined
  let outcome: { answer: SessionAnswer | undefined } | { error: unknown } | undefined
  const end = (how: typeof outcome): void => {
    outcome ??= how
    wake()
  }
  const take = (event: string, data: unknown): void => {
    if (event === 'open') {
      // From here on it is the session that may not be silent.
      call.stopTimer()
      onOpen?.()
    } else if (unread.length < mostUnreadEvents) {
      unread.push({ event, data })
      wake()
    } else {
      end({
        error: protocolError(call.name, `${mostUnreadEvents} events that nobody has read yet`),
      })
    }
  }
  call.askInSession(undefined, take).then(
    (answer) => end({ answer }),
    (error: unknown) => end({ error }),
  )
  for (;;) {
    const woken = new Promise<void>((resolve) => (wake = resolve))
    yield* unread.splice(0)
    // More may have come while these were read.
    if (unread.length > 0) continue
    if (outcome !== undefined) break
    await woken
  }
  if ('error' in outcome) throw outcome.error
  if (outcome.answer === undefined) return false
  const answer = answerOf(outcome.answer)
  if (!isOk(answer)) throw errorFrom(call.name, answer)
  return true
}

async function* eventsOverHttp(
  call: Call,
  { onOpen, idleTimeoutMs = defaultIdleTimeoutMs }: EventsOptions,
): AsyncGenerator<ServerEvent, void, undefined> {
  const response = await call.send(undefined, 'text/event-stream')
  if (!isOk({ status: response.statusCode ?? 0 })) {
    throw errorFrom(call.name, await readAnswer(call, response))
  }
  const type = response.headers['content-type'] ?? 'none'
  if (!type.startsWith('text/event-stream')) {
    throw protocolError(call.name, `content type ${type} instead of text/event-stream`)
  }
  onOpen?.()
  const parser = new EventParser(call.name)
  call.restartTimer(idleTimeoutMs)
  for await (const chunk of response as AsyncIterable<Buffer>) {
    call.restartTimer(idleTimeoutMs)
    yield* parser.push(chunk)
  }
}

function answerOf({ status, body }: SessionAnswer): Answer {
  return { status, reason: '', body, empty: body === undefined }
}

function isOk({ status }: Pick<Answer, 'status'>): boolean {
  return status >= 200 && status < 300
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text) as unknown
  } catch {
    return undefined
  }
}
