// The door of a manager: who sends a request, and whether the route is for such. Both are decided
// from the head of a request, before anything of its body is read.
import type { Socket } from 'node:net'
import { TLSSocket } from 'node:tls'
import type { FastifyInstance, onRequestHookHandler } from 'fastify'
import { RfaasError } from '../errors.js'
import { keyIdOf, type KeyRing } from './keys.js'
import type { Logger } from './log.js'
import { isLoopback } from './loopback.js'
import type { Asker } from './operations.js'
import { openPrincipal, type Principal, type Role } from './principal.js'

/** Which roles may call a route, by `METHOD /path`, the path as the route has it. */
export type AccessTable = Readonly<Record<string, readonly Role[]>>

export interface DoorOptions {
  /** Without: only requests of this host, and each may do everything. */
  keys: KeyRing | undefined
  /** Nodes prove themselves with a certificate, too. */
  nodeCertificates: boolean
  /** Whom another manager speaks for that passes a request on; undefined: it is not from one. */
  peers?: ((request: Asker) => Principal | undefined) | undefined
  logger: Logger
}

export class Door {
  readonly #options: DoorOptions
  readonly #failures = new FailureLimit()
  readonly #principals = new WeakMap<Asker, Principal>()
  #table: AccessTable = {}

  constructor(options: DoorOptions) {
    this.#options = options
  }

  /** Guards every route that `app` gets from now on; one that is not in the table is an error. */
  guard(app: Pick<FastifyInstance, 'addHook'>, table: AccessTable): void {
    this.#table = table
    app.addHook('onRoute', (route) => {
      const name = `${String(route.method)} ${route.url}`
      const roles = table[name]
      if (roles === undefined) throw new Error(`nobody has said who may call ${name}`)
      route.onRequest = this.only(...roles)
    })
  }

  /** For one route. */
  only(...roles: readonly Role[]): onRequestHookHandler {
    return (request, _reply, done) => {
      this.#admit(request, roles)
      done()
    }
  }

  /** The same for a request that does not come by a route of its own: see `guard`. Every operation has a route,
   * so one that is not in the table was not guarded there either. */
  admit(asker: Asker): void {
    const roles = this.#table[`${asker.method} ${asker.routeOptions.url}`]
    if (roles !== undefined) this.#admit(asker, roles)
  }

  #admit(asker: Asker, roles: readonly Role[]): void {
    const principal = this.#authenticate(asker)
    if (principal !== openPrincipal && !roles.includes(principal.role)) {
      throw forbidden(principal, roles)
    }
    this.#principals.set(asker, principal)
  }

  /** Who sent a request that came through the door. */
  readonly principalOf = (request: Asker): Principal => {
    const principal = this.#principals.get(request)
    if (principal !== undefined) return principal
    throw new RfaasError('ERR_RFAAS_INTERNAL', 'a route without a guard asked who its caller is')
  }

  /** Whether its caller's key is still what it was: it may be removed while an answer goes on. True for
   * requests that did not come with a key. */
  isStillWelcome(request: Asker): boolean {
    const principal = this.#principals.get(request)
    const { keys } = this.#options
    return principal === undefined || keys === undefined || keys.stillHas(principal)
  }

  /** What to answer to a request that could not prove itself: logged, but only so often. */
  refusal(request: Asker, error: RfaasError, details: Record<string, unknown>): RfaasError {
    const remote = request.ip
    const verdict = this.#failures.count(remote)
    if (verdict !== 'quiet') {
      const { method, routeOptions } = request
      const more = verdict === 'last' ? { further: 'not logged for a minute' } : {}
      const place = { remote, method, route: routeOptions.url, ...details, ...more }
      this.#options.logger.warn({ ...place, reason: error.message }, 'refused: not authenticated')
      return error
    }
    // Whoever has a right key is served all the same: nobody can lock out the others behind the same
    // address, and 256 random bits need no protection against guessing. The log does.
    return new RfaasError(
      'ERR_RFAAS_UNAUTHORIZED',
      `too many refused requests from ${remote}: wait a minute, then use a valid key or token`,
      { status: 429 },
    )
  }

  #authenticate(request: Asker): Principal {
    const { keys, peers } = this.#options
    const principal = peers?.(request)
    if (principal !== undefined) {
      // One that its manager knew by a key is no more here, without keys, than it was there.
      const isOpen = keys === undefined && principal.keyId === openPrincipal.keyId
      return isOpen ? openPrincipal : principal
    }
    if (keys === undefined) {
      if (isFromThisHost(request)) return openPrincipal
      throw this.refusal(request, unauthorized('without keys this is for its own host only'), {})
    }
    const key = bearerOf(request)
    if (key === undefined) {
      const message =
        'the request has no API key: send "Authorization: Bearer <key>" (--key-file, RFAAS_KEY_FILE)'
      throw this.refusal(request, unauthorized(message), {})
    }
    try {
      const principal = keys.principalOf(key)
      if (principal.role === 'node' && this.#options.nodeCertificates) {
        checkCertificate(request.socket, principal.node ?? '')
      }
      return principal
    } catch (error) {
      if (!(error instanceof RfaasError)) throw error
      throw this.refusal(request, error, { keyId: keyIdOf(key) ?? 'malformed' })
    }
  }
}

/** The credential of `Authorization: Bearer`. */
export function bearerOf(request: Asker): string | undefined {
  return /^Bearer ([^\s]+)$/i.exec(request.headers.authorization ?? '')?.[1]
}

/** Also by the name that it was asked under: a web page whose name was made to resolve to 127.0.0.1
 * (DNS rebinding) sends requests from this host, too. */
function isFromThisHost(request: Asker): boolean {
  return isLoopback(request.socket.remoteAddress ?? '') && isLoopback(request.hostname)
}

/** The certificate of the connection is of this node. Nothing follows from `authorized` alone: it is
 * also set for a resumed session that never had a certificate. */
function checkCertificate(socket: Socket, node: string): void {
  const tls = socket instanceof TLSSocket ? socket : undefined
  const certificate = tls?.getPeerX509Certificate()
  const valid = tls?.authorized === true
  // It compares without regard to case, names of nodes do not.
  const names = { subject: 'always', wildcards: false, partialWildcards: false } as const
  if (valid && certificate?.checkHost(node, names) === node) return
  let found = 'none was shown'
  if (certificate !== undefined) {
    found = valid
      ? `it is that of ${certificate.subject.replaceAll('\n', ' ')}`
      : `it is not valid (${String(tls?.authorizationError)})`
  }
  throw unauthorized(
    `node ${node} has to prove itself with a certificate of that name, signed by the authority in nodeCa: ${found}`,
  )
}

/** Counts the failures of an address for a minute. As many addresses as are remembered, no more. */
class FailureLimit {
  static readonly #most = 60
  static readonly #windowMs = 60_000
  static readonly #addresses = 1024
  readonly #failures = new Map<string, { since: number; count: number }>()

  count(address: string): 'log' | 'last' | 'quiet' {
    const now = performance.now()
    let entry = this.#failures.get(address)
    if (entry === undefined || now - entry.since > FailureLimit.#windowMs) {
      entry = { since: now, count: 0 }
      this.#failures.delete(address)
      this.#failures.set(address, entry)
      const [oldest] = this.#failures.keys()
      if (this.#failures.size > FailureLimit.#addresses && oldest !== undefined) {
        this.#failures.delete(oldest)
      }
    }
    entry.count += 1
    if (entry.count > FailureLimit.#most) return 'quiet'
    return entry.count === FailureLimit.#most ? 'last' : 'log'
  }
}

function forbidden({ keyId, role }: Principal, roles: readonly Role[]): RfaasError {
  return new RfaasError(
    'ERR_RFAAS_FORBIDDEN',
    `key ${keyId} has role ${role}, this is for role ${roles.join(' or ')}`,
    { status: 403 },
  )
}

function unauthorized(message: string): RfaasError {
  return new RfaasError('ERR_RFAAS_UNAUTHORIZED', message, { status: 401 })
}
