// A manager that does not lead passes requests on to the one that does, as they are: bodies, answers and
// event streams. Who sent them was decided here, at the door; the leader believes it because both have the
// same signing key.
import { hkdfSync, timingSafeEqual, type KeyObject } from 'node:crypto'
import type { ClientRequest, IncomingHttpHeaders } from 'node:http'
import { setTimeout as sleep } from 'node:timers/promises'
import type { FastifyReply, FastifyRequest } from 'fastify'
import { Type } from 'typebox'
import { bearerOf } from '../../lib/control/auth.js'
import { watchCaller } from '../../lib/control/caller.js'
import { inspect } from '../../lib/control/check.js'
import { request as ask } from '../../lib/control/http.js'
import type { Asker } from '../../lib/control/operations.js'
import type { Principal } from '../../lib/control/principal.js'
import type { Transport } from '../../lib/control/transport.js'
import { RfaasError } from '../../lib/errors.js'
import type { Authenticate } from './server.js'

const principalHeader = 'rfaas-principal'
const passedOn = ['accept', 'content-type', 'content-length', 'transfer-encoding', 'user-agent']
// They are about one connection.
const hopByHop = ['connection', 'keep-alive', 'transfer-encoding']

// A request may wait as long as the leader is there: so often it is asked, and so long it may take.
const askEveryMs = 2000
const answersWithinMs = 2000
// Event streams carry a sign of life every 15 s; other answers come without pauses.
const silentWithinMs = 60_000

const count = Type.Optional(Type.Integer({ minimum: 0 }))
const PrincipalRecord = Type.Object({
  tenant: Type.String(),
  role: Type.Union([Type.Literal('tenant'), Type.Literal('node'), Type.Literal('operator')]),
  keyId: Type.String(),
  node: Type.Optional(Type.String()),
  quota: Type.Optional(Type.Object({ maxCores: count, maxMemoryBytes: count, maxLeases: count })),
})

/** How managers prove to each other that they are of the same store. */
export class Peers {
  readonly #secret: string

  constructor(signingKey: KeyObject) {
    const key = signingKey.export({ type: 'pkcs8', format: 'der' })
    const secret = hkdfSync(
      'sha256',
      key,
      '',
      'rfaas: from resource manager to resource manager',
      32,
    )
    this.#secret = `rfp_${Buffer.from(secret).toString('base64url')}`
  }

  /** Whom a peer speaks for; undefined: it is not from a peer. */
  readonly principalOf = (request: Asker): Principal | undefined => {
    const given = Buffer.from(bearerOf(request) ?? '')
    const own = Buffer.from(this.#secret)
    if (given.length !== own.length || !timingSafeEqual(given, own)) return undefined
    const header = request.headers[principalHeader]
    const text = Buffer.from(typeof header === 'string' ? header : '', 'base64url').toString()
    try {
      const principal: unknown = JSON.parse(text)
      if (inspect(PrincipalRecord, principal) === undefined) return principal as Principal
    } catch {
      // As below.
    }
    throw new RfaasError(
      'ERR_RFAAS_PROTOCOL',
      'a resource manager passed on a request without saying whose it is: run the same version everywhere',
      { status: 400 },
    )
  }

  headersFor(principal: Principal): Record<string, string> {
    return {
      authorization: `Bearer ${this.#secret}`,
      [principalHeader]: Buffer.from(JSON.stringify(principal)).toString('base64url'),
    }
  }
}

export interface ForwardingOptions {
  peers: Peers
  transport: Transport
  principalOf: Authenticate
}

export class Forwarding {
  readonly #options: ForwardingOptions
  readonly #open = new Set<ClientRequest>()

  constructor(options: ForwardingOptions) {
    this.#options = options
  }

  /** Answers `request` with what the manager at `url` answers. Resolves when that has begun. */
  async forward(url: string, request: FastifyRequest, reply: FastifyReply): Promise<void> {
    const { peers, transport, principalOf } = this.#options
    if (peers.principalOf(request) !== undefined) {
      throw new RfaasError('ERR_RFAAS_UNAVAILABLE', 'the leader has just changed: try again')
    }
    const headers = {
      ...pick(request.headers, passedOn),
      ...peers.headersFor(principalOf(request)),
    }
    const caller = watchCaller(request, reply)
    const sent = transport.send(targetAt(url, request.raw.url ?? '/'), request.method, headers)
    this.#open.add(sent)
    sent.once('close', () => this.#open.delete(sent))
    const answered = new AbortController()
    void endIfGone(url, transport, sent, answered.signal)
    caller.addEventListener('abort', () => sent.destroy(), { once: true })
    const response = await new Promise<
      NodeJS.ReadableStream & { statusCode?: number; headers: IncomingHttpHeaders }
    >((resolve, reject) => {
      sent.once('response', resolve)
      sent.on('error', (cause) => reject(gone(url, cause)))
      request.raw.pipe(sent)
    }).finally(() => answered.abort())
    sent.setTimeout(silentWithinMs, () => sent.destroy())
    reply.hijack()
    const { raw } = reply
    raw.writeHead(response.statusCode ?? 502, without(response.headers, hopByHop))
    // The answer is cut where the leader's was: the caller sees that something is missing.
    response.on('error', () => raw.destroy())
    response.pipe(raw)
    // An event stream begins before there is an event.
    raw.flushHeaders()
  }

  /** Whoever waits for the leader of before is answered now. */
  giveUp(): void {
    for (const sent of this.#open) sent.destroy(new Error('it leads no more'))
  }
}

/** Path and query at the leader. A request line may hold a whole URL: with our secret it would go to
 * whatever host that names. */
function targetAt(url: string, requested: string): URL {
  const target = new URL(url)
  const { pathname, search } = new URL(requested, url)
  target.pathname = pathname
  target.search = search
  return target
}

async function endIfGone(
  url: string,
  transport: Transport,
  sent: ClientRequest,
  signal: AbortSignal,
): Promise<void> {
  while (!signal.aborted) {
    try {
      await sleep(askEveryMs, undefined, { signal, ref: false })
      await ask(`${url}/healthz`, { transport, timeoutMs: answersWithinMs, signal })
    } catch (error) {
      const answers = error instanceof RfaasError && error.status !== undefined
      if (!signal.aborted && !answers) sent.destroy(error as Error)
    }
  }
}

function pick(headers: IncomingHttpHeaders, names: readonly string[]): Record<string, string> {
  const picked: Record<string, string> = {}
  for (const name of names) {
    const value = headers[name]
    if (typeof value === 'string') picked[name] = value
  }
  return picked
}

function without(headers: IncomingHttpHeaders, names: readonly string[]): IncomingHttpHeaders {
  return Object.fromEntries(Object.entries(headers).filter(([name]) => !names.includes(name)))
}

function gone(url: string, cause: Error): RfaasError {
  return new RfaasError(
    'ERR_RFAAS_UNAVAILABLE',
    `the leading resource manager ${url} does not answer (${cause.message}): try again`,
    { cause },
  )
}
