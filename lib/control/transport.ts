// How requests leave this process: over which connections, whom they believe, how this side proves
// itself, and where its secrets may go. node:https rather than the global fetch, which can neither
// be given an authority nor a certificate.
import { Agent as PlainAgent, request as plainRequest, type ClientRequest } from 'node:http'
import { Agent as TlsAgent, request as tlsRequest } from 'node:https'
import type { SecureContextOptions } from 'node:tls'
import { RfaasError } from '../errors.js'
import { isLoopback } from './loopback.js'
import type { Reloaded } from './reloaded.js'
import type { Session } from './session.js'
import { SessionPool } from './session-pool.js'
import { loadTls, type TlsFields, type TlsFiles } from './tls.js'

export interface TransportOptions extends TlsFiles {
  /** Send keys and tokens to other hosts unencrypted: only in a network where nobody listens. */
  allowPlaintext?: boolean | undefined
  /** Names of the options that the files came from. */
  fields?: TlsFields
  /** Certificates that changed and cannot be used; those before go on. */
  failed?: (error: unknown) => void
}

// Well below the time after which servers close idle connections (server.ts), so that a request is
// not sent into one that is just closing.
const idleMs = 4000
type Headers = Record<string, string | number>

const usualFields: TlsFields = { cert: 'tlsCert', key: 'tlsKey', ca: 'ca' }

// Of all of this process: without encryption every connection to a server is like any other.
const plainAgent = new PlainAgent({ keepAlive: true, timeout: idleMs })
const sendPlain = (url: URL, method: string, headers: Headers): ClientRequest =>
  plainRequest(url, { method, headers, agent: plainAgent })
const plainSessions = new SessionPool(sendPlain)

export class Transport {
  readonly #allowPlaintext: boolean
  readonly #context: Reloaded<SecureContextOptions>
  #tls: { context: SecureContextOptions; agent: TlsAgent; sessions: SessionPool } | undefined

  /** Throws ERR_RFAAS_INVALID_ARGUMENT when a file cannot be used. */
  constructor({
    allowPlaintext = false,
    fields = usualFields,
    failed,
    ...files
  }: TransportOptions = {}) {
    this.#allowPlaintext = allowPlaintext
    this.#context = loadTls(files, fields, failed ?? (() => undefined))
  }

  /** Redirects are not followed: they would carry the secret to somebody else. */
  send(url: URL, method: string, headers: Headers): ClientRequest {
    if (url.protocol === 'https:') {
      return tlsRequest(url, { method, headers, agent: this.#secure.agent })
    }
    if (headers['authorization'] !== undefined) this.#checkMayBeRead(url)
    return sendPlain(url, method, headers)
  }

  /** The session with the manager there: see SessionPool. `secret`: a key or token will be sent. */
  session(url: URL, secret: boolean): Session | undefined | Promise<Session | undefined> {
    if (url.protocol === 'https:') return this.#secure.sessions.at(url)
    if (secret) this.#checkMayBeRead(url)
    return plainSessions.at(url)
  }

  #checkMayBeRead({ hostname, origin }: URL): void {
    if (this.#allowPlaintext || isLoopback(hostname)) return
    throw new RfaasError(
      'ERR_RFAAS_INVALID_ARGUMENT',
      `${origin} is not encrypted, and a key or token would be sent there: use https, or allow it with --allow-plaintext (allowPlaintext) in a network where nobody listens`,
      { field: 'url', value: origin, allowed: 'an https URL' },
    )
  }

  get #secure(): { agent: TlsAgent; sessions: SessionPool } {
    const context = this.#context.value
    if (this.#tls?.context !== context) {
      // Requests that run keep their connection; idle ones close by themselves.
      this.#tls?.sessions.retire()
      const agent = new TlsAgent({
        keepAlive: true,
        timeout: idleMs,
        // Whatever NODE_TLS_REJECT_UNAUTHORIZED says.
        rejectUnauthorized: true,
        ...context,
      })
      const sessions = new SessionPool((url, method, headers) =>
        tlsRequest(url, { method, headers, agent }),
      )
      this.#tls = { context, agent, sessions }
    }
    return this.#tls
  }
}

/** Believes the authorities of the system, and has no certificate of its own. */
export const defaultTransport = new Transport()

/** RFAAS_CA: for clients. */
export function caOfEnvironment(): string | undefined {
  return process.env['RFAAS_CA'] || undefined
}
