// The server side of the control plane, the same for every manager: Fastify with the messages'
// schemas, one shape for every error, and what an operator expects (/healthz, /metrics,
// /openapi.json). The managers add only their routes.
import { STATUS_CODES, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import { constants } from 'node:crypto'
import { Server as TlsServer, type ServerOptions as TlsServerOptions } from 'node:https'
import type { AddressInfo, Socket } from 'node:net'
import type { SecureContextOptions } from 'node:tls'
import swagger from '@fastify/swagger'
import type { TypeBoxTypeProvider } from '@fastify/type-provider-typebox'
import {
  fastify,
  LogController,
  type FastifyBaseLogger,
  type FastifyInstance,
  type FastifyReply,
} from 'fastify'
import { collectDefaultMetrics, Histogram, Registry } from 'prom-client'
import type { TSchema } from 'typebox'
import { RfaasError } from '../errors.js'
import { packageVersion } from '../package-root.js'
import { Door, type DoorOptions } from './auth.js'
import { checkArgument } from './check.js'
import type { KeyRing } from './keys.js'
import type { Logger } from './log.js'
import type { Reloaded } from './reloaded.js'
import { SseStream, type OpenStream } from './event-stream.js'
import { addRoute, OperationTable, type Operation } from './operations.js'
import { badRequest, bodyOf, translate } from './refusal.js'
import { ErrorBody, Health, type Standing } from './schemas.js'
import { Sessions } from './session-server.js'

export type ControlApp = FastifyInstance<
  Server,
  IncomingMessage,
  ServerResponse,
  FastifyBaseLogger,
  TypeBoxTypeProvider
>

export interface ServerOptions {
  /** Title of the OpenAPI description. */
  title: string
  logger: Logger
  /** Who may come in; without, requests of this host may do everything. */
  keys?: KeyRing | undefined
  /** Whom other managers speak for that pass requests on: see Door. */
  peers?: DoorOptions['peers']
  /** Serves HTTPS. Followed when the files change. */
  tls?: Reloaded<SecureContextOptions> | undefined
  /** Asks clients for a certificate of the authorities in `tls`; nodes must have one. */
  nodeCertificates?: boolean
  /** Longest request body; a route may set its own. Default 1 MiB. */
  bodyLimit?: number
  /** Time in which a whole request must have arrived. Default 30 s. */
  requestTimeoutMs?: number
  /** Silence on a connection after which it is closed. Default 2 min. */
  connectionTimeoutMs?: number
  /** What its operator has to look after although it can do its work: /healthz tells. */
  warnings?: (() => readonly string[]) | undefined
  /** Throws what keeps the manager from its work: /healthz answers with it, else with what it returns. */
  assertHealthy?: () => Standing | undefined
  /** While it returns false sessions are refused, and requests come one by one. Default: true. */
  hasSessions?: (() => boolean) | undefined
  /** Interval of the signs of life in event streams and sessions. Default 15 s. */
  streamHeartbeatMs?: number
}

export interface ControlServer {
  app: ControlApp
  /** Of this server alone, so that two managers may share a process. */
  registry: Registry
  /** Guards the routes that a manager adds. */
  door: Door
  /** Answers requests for it, and those in sessions. Guarded by the door like a route. */
  operation<
    P extends TSchema,
    Q extends TSchema,
    B extends TSchema,
    A extends TSchema | undefined = undefined,
  >(
    operation: Operation<P, Q, B, A>,
  ): void
  /** Ends all event streams and sessions: who follows them comes again. */
  endStreams(): void
  /** Listens and returns the base URL; port 0 takes a free one. */
  listen(host: string, port: number): Promise<string>
  /** Ends event streams, lets running requests finish for a short time, then closes. Idempotent. */
  close(): Promise<void>
}

const closeGraceMs = 2000
// A token that names every core of a large node does not fit into the default 16 KiB.
const maxHeaderSize = 128 * 1024
const certificateLookMs = 5000
const welcomeLookMs = 2000

export async function createServer(options: ServerOptions): Promise<ControlServer> {
  const { logger } = options
  const registry = new Registry()
  collectDefaultMetrics({ register: registry })
  const streams = new Set<OpenStream>()

  const { keys, peers, tls, nodeCertificates = false, hasSessions = () => true } = options
  const bodyLimit = options.bodyLimit ?? 1024 * 1024
  const requestTimeout = options.requestTimeoutMs ?? 30_000
  const connectionTimeout = options.connectionTimeoutMs ?? 120_000
  const heartbeatMs = options.streamHeartbeatMs ?? 15_000
  const door = new Door({ keys, peers, nodeCertificates, logger })
  const limits = {
    headersTimeout: Math.min(10_000, requestTimeout),
    connectionsCheckingInterval: 1000,
    maxHeaderSize,
  }
  const secure = (context: SecureContextOptions): TlsServerOptions => ({
    ...context,
    ...(nodeCertificates && {
      requestCert: true,
      // The door decides: clients have none.
      rejectUnauthorized: false,
      // A session that is resumed was checked by the authorities of another day.
      secureOptions: constants.SSL_OP_NO_TICKET,
    }),
  })
  const app = fastify({
    loggerInstance: logger as FastifyBaseLogger,
    logController: new LogController({ disableRequestLogging: true }),
    // Nothing is logged with a request's own logger.
    childLoggerFactory: (parent) => parent,
    bodyLimit,
    // Both ends of a slow-loris: a request that trickles in and a connection that says nothing.
    requestTimeout,
    connectionTimeout,
    ...(tls === undefined
      ? { http: limits }
      : { https: { ...limits, handshakeTimeout: 10_000, ...secure(tls.value) } }),
    exposeHeadRoutes: false,
    forceCloseConnections: false,
    clientErrorHandler: (error, socket) => refuseGarbage(logger, error, socket),
    frameworkErrors: (error, _request, reply) => {
      void sendError(reply, badRequest(error.message))
    },
  }).withTypeProvider<TypeBoxTypeProvider>() as ControlApp
  if (app.server instanceof TlsServer && tls !== undefined) {
    followCertificates(app.server, tls, secure)
  }

  app.setValidatorCompiler<TSchema>(({ schema, httpPart }) => (value) => {
    try {
      return { value: checkArgument(schema, value, httpPart) }
    } catch (error) {
      return { error: error as Error }
    }
  })
  app.setErrorHandler((error, request, reply) => {
    const known = translate(error)
    const place = { method: request.method, route: request.routeOptions.url, err: error }
    if (known.status === 500) logger.error(place, 'request failed')
    else logger.debug(place, 'request refused')
    return sendError(reply, known)
  })
  app.setNotFoundHandler((request, reply) => {
    const path = request.url.split('?')[0] ?? ''
    const message = `${request.method} ${path.slice(0, 200)} does not exist: see /openapi.json`
    return sendError(reply, new RfaasError('ERR_RFAAS_NOT_FOUND', message, { status: 404 }))
  })
  let ending = false
  const observe = addRequestMetrics(app, registry)
  const operations = new OperationTable()
  const sessions = new Sessions({
    operations,
    admit: (asker) => door.admit(asker),
    open: () => !ending && hasSessions(),
    lineTimeoutMs: requestTimeout,
    idleMs: connectionTimeout,
    heartbeatMs,
    answered: observe,
    streams,
    logger,
  })
  sessions.listen(app.server)
  // Streams end before the server waits for its requests, or it would wait for them.
  // Node counts a connection on which no request has begun as busy: HTTP clients that connect ahead
  // would hold up the end, so these are cut. Known by the peer's address, because the socket of a
  // request over TLS is another object than that of its connection.
  const endStreams = (): void => {
    for (const stream of streams) stream.end()
    sessions.end()
  }
  const unused = new Map<string, Socket>()
  const peer = ({ remoteAddress, remotePort }: Socket): string => `${remoteAddress} ${remotePort}`
  app.server.on('connection', (socket: Socket) => {
    const name = peer(socket)
    unused.set(name, socket)
    socket.once('close', () => {
      if (unused.get(name) === socket) unused.delete(name)
    })
  })
  for (const begun of ['request', 'upgrade']) {
    app.server.on(begun, ({ socket }: IncomingMessage) => unused.delete(peer(socket)))
  }
  const looking = setInterval(() => {
    for (const stream of streams) if (!door.isStillWelcome(stream.asker)) stream.end()
  }, welcomeLookMs).unref()
  app.addHook('preClose', (done) => {
    ending = true
    clearInterval(looking)
    endStreams()
    for (const socket of unused.values()) socket.destroy()
    done()
  })
  // A request that was running when the end began must not leave an idle connection behind.
  app.addHook('onSend', (_request, reply, _payload, done) => {
    if (ending) void reply.header('connection', 'close')
    done()
  })
  const operation = ((declared: Operation) => {
    addRoute(app, declared, (reply) => new SseStream(reply, streams, heartbeatMs))
    operations.add(declared)
  }) as ControlServer['operation']
  await addOperatorRoutes(app, { registry, door, operation, ...options })

  let closing: Promise<void> | undefined
  return {
    app,
    registry,
    door,
    operation,
    endStreams,
    listen: async (host, port) => {
      await listen(app, host, port)
      const { port: bound } = app.server.address() as AddressInfo
      return `${tls === undefined ? 'http' : 'https'}://${host.includes(':') ? `[${host}]` : host}:${bound}`
    },
    close: () => {
      closing ??= closeServer(app, sessions)
      return closing
    },
  }
}

/** New connections get the certificate that is in the files; those that are open keep theirs. */
function followCertificates(
  server: Pick<TlsServer, 'setSecureContext' | 'once'>,
  tls: Reloaded<SecureContextOptions>,
  secure: (context: SecureContextOptions) => TlsServerOptions,
): void {
  let current = tls.value
  const timer = setInterval(() => {
    if (tls.value === current) return
    current = tls.value
    server.setSecureContext(secure(current))
  }, certificateLookMs).unref()
  server.once('close', () => clearInterval(timer))
}

async function listen(app: ControlApp, host: string, port: number): Promise<void> {
  try {
    await app.listen({ host, port })
  } catch (error) {
    await app.close()
    const code = (error as NodeJS.ErrnoException).code
    if (code === 'EADDRINUSE') {
      throw new RfaasError(
        'ERR_RFAAS_UNAVAILABLE',
        `port ${port} of ${host} is in use: stop what listens there or choose another port`,
        { cause: error, field: 'port', value: port },
      )
    }
    if (code === 'EADDRNOTAVAIL' || code === 'ENOTFOUND' || code === 'EACCES') {
      throw new RfaasError(
        'ERR_RFAAS_INVALID_ARGUMENT',
        `cannot listen on ${host} port ${port} (${code}): choose an address of this host and a port that this user may use`,
        { cause: error, field: 'host', value: host },
      )
    }
    throw error
  }
}

async function closeServer(app: ControlApp, sessions: Sessions): Promise<void> {
  // A client that never finishes its request must not hold up the end of the process.
  const timer = setTimeout(() => {
    app.server.closeAllConnections()
    sessions.destroy()
  }, closeGraceMs)
  try {
    await app.close()
  } finally {
    clearTimeout(timer)
  }
}

/** What monitoring asks for. Only that it is alive is for everybody: metrics tell of all tenants. */
async function addOperatorRoutes(
  app: ControlApp,
  {
    registry,
    door,
    operation,
    title,
    assertHealthy,
    warnings,
  }: Pick<ControlServer, 'registry' | 'door' | 'operation'> &
    Pick<ServerOptions, 'title' | 'assertHealthy' | 'warnings'>,
): Promise<void> {
  // Every described route also describes how it fails.
  app.addHook('onRoute', ({ schema }) => {
    if (schema?.response !== undefined) {
      schema.response = { '4xx': ErrorBody, '5xx': ErrorBody, ...schema.response }
    }
  })
  await app.register(swagger, {
    openapi: {
      openapi: '3.1.0',
      info: { title, version: packageVersion() },
      // What a route names in `security` has to be here, or there is no description at all.
      components: { securitySchemes: { leaseToken: { type: 'http', scheme: 'bearer' } } },
    },
  })
  const startedAt = performance.now()
  operation({
    method: 'GET',
    path: '/healthz',
    summary: 'Can the manager do its work?',
    answer: Health,
    handle: () => {
      const standing = assertHealthy?.()
      const uptimeMs = Math.round(performance.now() - startedAt)
      return { status: 'ok' as const, uptimeMs, warnings: [...(warnings?.() ?? [])], ...standing }
    },
  })
  const onRequest = door.only('operator')
  app.get(
    '/metrics',
    { schema: { summary: 'Prometheus metrics' }, onRequest },
    async (_request, reply) => {
      void reply.type(registry.contentType)
      return registry.metrics()
    },
  )
  app.get('/openapi.json', { schema: { hide: true }, onRequest }, () => app.swagger())
}

type Observe = (answer: { method: string; route: string; status: number; seconds: number }) => void

function addRequestMetrics(app: ControlApp, registry: Registry): Observe {
  const duration = new Histogram({
    name: 'rfaas_http_request_duration_seconds',
    help: 'Time from the arrival of a request to the end of its answer',
    labelNames: ['method', 'route', 'status'],
    buckets: [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1, 5],
    registers: [registry],
  })
  const observe: Observe = ({ method, route, status, seconds }) =>
    duration.observe({ method, route, status: String(status) }, seconds)
  app.addHook('onResponse', (request, reply, done) => {
    // The route's pattern, never the URL: clients must not be able to create time series.
    const route = request.routeOptions.url ?? 'unknown'
    const seconds = reply.elapsedTime / 1000
    observe({ method: request.method, route, status: reply.statusCode, seconds })
    done()
  })
  return observe
}

function sendError(reply: FastifyReply, error: RfaasError): FastifyReply {
  if (error.status === 503) void reply.header('retry-after', '1')
  return reply.status(error.status ?? 400).send(bodyOf(error))
}

/** What is on the socket is not HTTP, or came too slowly: one answer, one line in the log, gone. */
function refuseGarbage(logger: Logger, error: NodeJS.ErrnoException, socket: Socket): void {
  if (error.code === 'ECONNRESET' || socket.destroyed) {
    socket.destroy()
    return
  }
  // It has its answer and goes on: what follows is not read as HTTP either.
  if (socket.writableEnded) return
  const timedOut = error.code === 'ERR_HTTP_REQUEST_TIMEOUT'
  const tooLarge = error.code === 'HPE_HEADER_OVERFLOW'
  const status = timedOut ? 408 : tooLarge ? 431 : 400
  logger.warn({ remote: socket.remoteAddress, reason: error.code }, 'refused a malformed request')
  const message = timedOut
    ? 'the request did not arrive in time'
    : tooLarge
      ? 'the request header is too long'
      : 'this is not an HTTP request'
  const body = JSON.stringify(bodyOf(badRequest(message)))
  if (socket.writable) {
    socket.write(
      `HTTP/1.1 ${status} ${STATUS_CODES[status]}\r\nConnection: close\r\n` +
        `Content-Type: application/json\r\nContent-Length: ${Buffer.byteLength(body)}\r\n\r\n${body}`,
    )
  }
  socket.destroySoon()
}
