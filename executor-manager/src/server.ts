// The routes for clients. All of /v1 needs a lease token; what a lease may see and end is its own.
import type { FastifyReply, FastifyRequest } from 'fastify'
import type { Readable } from 'node:stream'
import { Type } from 'typebox'
import {
  ExecutorInfo,
  ExecutorStart,
  LeaseReleased,
  Sha256,
  type LeaseClaims,
} from '../../lib/control/schemas.js'
import { bearerOf } from '../../lib/control/auth.js'
import { watchCaller } from '../../lib/control/caller.js'
import type { ControlServer } from '../../lib/control/server.js'
import { RfaasError } from '../../lib/errors.js'
import type { LeaseTable } from './leases.js'
import type { Metrics } from './metrics.js'
import type { PackageStore } from './packages.js'

const identifier = Type.String({ pattern: '^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$' })
const closed = { additionalProperties: false }
const IdParams = Type.Object({ id: identifier }, closed)
const CodeParams = Type.Object({ sha256: Sha256 }, closed)
const RenewedToken = Type.Object(
  { token: Type.String({ minLength: 1, maxLength: 64 * 1024 }) },
  closed,
)
const Nothing = Type.Null()
const security = [{ leaseToken: [] }]

export interface Services {
  leases: LeaseTable
  packages: PackageStore
  metrics: Metrics
  /** Whether the resource manager has heard of the lease's end: when it has, or soon enough anyway. */
  confirmed(lease: string): Promise<boolean>
}

export function addClientRoutes(server: ControlServer, services: Services): void {
  const { leases } = services
  const claimsOf = (request: FastifyRequest): LeaseClaims => {
    try {
      return leases.verify(bearer(request))
    } catch (error) {
      if (!(error instanceof RfaasError) || error.code !== 'ERR_RFAAS_UNAUTHORIZED') throw error
      throw server.door.refusal(request, error, {})
    }
  }

  addCodeRoutes(server, services, claimsOf)

  // An answer may take as long as a worker's start: its connection is not idle.
  server.app.post(
    '/v1/executors',
    {
      schema: {
        summary: 'Start a function package on the cores of the lease',
        security,
        body: ExecutorStart,
        response: { 201: ExecutorInfo },
      },
      onRequest: authenticate(claimsOf),
    },
    async (request, reply) => {
      const claims = claimsOf(request)
      const caller = watchCaller(request, reply)
      await leases.admit(claims)
      const { code, ...wanted } = request.body
      if (code !== undefined) await takeIn(services, claims.lease, wanted.package, code)
      return reply.status(201).send(await leases.startExecutor(claims.lease, wanted, caller))
    },
  )
  server.app.delete(
    '/v1/executors/:id',
    {
      schema: {
        summary: 'Stop an executor of the lease',
        security,
        params: IdParams,
        response: { 204: Nothing },
      },
      onRequest: authenticate(claimsOf),
    },
    async (request, reply) => {
      await leases.stopExecutor(claimsOf(request).lease, request.params.id)
      return reply.status(204).send(null)
    },
  )
  server.app.get(
    '/v1/leases/:id/events',
    {
      schema: {
        summary: 'Server-sent events: worker-lost, worker-ready, lease-revoking, lease-ended',
        security,
        params: IdParams,
      },
      onRequest: authenticate(claimsOf),
    },
    async (request, reply) => {
      const claims = forLease(claimsOf(request), request.params.id)
      await leases.admit(claims)
      leases.subscribe(claims.lease, server.eventStream(reply))
    },
  )
  server.app.put(
    '/v1/leases/:id/token',
    {
      schema: {
        summary: 'Show the token of a renewed lease',
        security,
        params: IdParams,
        body: RenewedToken,
        response: { 204: Nothing },
      },
      onRequest: authenticate(claimsOf),
    },
    async (request, reply) => {
      forLease(claimsOf(request), request.params.id)
      await leases.admit(forLease(leases.verify(request.body.token), request.params.id))
      return reply.status(204).send(null)
    },
  )
  server.app.delete(
    '/v1/leases/:id',
    {
      schema: {
        summary: 'End the lease on this node: stops its executors and confirms it as closed',
        security,
        params: IdParams,
        response: { 200: LeaseReleased },
      },
      onRequest: authenticate(claimsOf),
    },
    async (request) => {
      const claims = forLease(claimsOf(request), request.params.id)
      await leases.end(claims.lease, 'released')
      // So that whoever releases a lease finds its cores free and its use accounted for.
      return { confirmed: await services.confirmed(claims.lease) }
    },
  )
}

/** A package that came with the request to start it. */
async function takeIn(
  { leases, packages, metrics }: Services,
  lease: string,
  sha256: string,
  code: string,
): Promise<void> {
  leases.refuseIfRevoking(lease)
  const outcome = await packages.putShort(sha256, Buffer.from(code, 'base64'))
  if (outcome === 'stored') metrics.packagesStored.inc()
}

function addCodeRoutes(
  { app }: ControlServer,
  { leases, packages, metrics }: Services,
  claimsOf: (request: FastifyRequest) => LeaseClaims,
): void {
  app.head(
    '/v1/code/:sha256',
    {
      schema: { summary: 'Is the package on this node?', security, params: CodeParams },
      onRequest: authenticate(claimsOf),
    },
    async (request, reply) => {
      const { sha256 } = request.params
      if (await packages.has(sha256)) return reply.status(200).send()
      throw new RfaasError('ERR_RFAAS_NOT_FOUND', `package ${sha256} is not on this node`)
    },
  )
  // In a scope of its own: here, and only here, a body is a stream of any type and length.
  void app.register((scope, _options, done) => {
    scope.removeAllContentTypeParsers()
    scope.addContentTypeParser('*', (_request, payload, parsed) => parsed(null, payload))
    scope.put(
      '/v1/code/:sha256',
      {
        schema: {
          summary: 'Upload a function package (raw bytes, application/octet-stream)',
          security,
          params: CodeParams,
          response: { 201: Nothing, 204: Nothing },
        },
        onRequest: authenticate((request) => {
          const claims = claimsOf(request)
          leases.refuseIfRevoking(claims.lease)
          return claims
        }),
        bodyLimit: Number.MAX_SAFE_INTEGER, // the store has its own and counts what arrives
      },
      async (request, reply) => {
        const { sha256 } = request.params as { sha256: string }
        try {
          const tooLong = packages.tooLong(Number(request.headers['content-length'] ?? 0))
          if (tooLong !== undefined) throw tooLong
          const bytes = (request.body ?? request.raw) as Readable
          const outcome = await packages.put(sha256, bytes)
          if (outcome === 'stored') metrics.packagesStored.inc()
          return await reply.status(outcome === 'stored' ? 201 : 204).send(null)
        } catch (error) {
          // The rest of the body is not read; the connection cannot be used for another request.
          void reply.header('connection', 'close')
          throw error
        }
      },
    )
    done()
  })
}

/** Before anything of the body is read. */
function authenticate(
  claimsOf: (request: FastifyRequest) => LeaseClaims,
): (request: FastifyRequest, reply: FastifyReply, done: (error?: Error) => void) => void {
  return (request, _reply, done) => {
    claimsOf(request)
    done()
  }
}

function bearer(request: FastifyRequest): string {
  const token = bearerOf(request)
  if (token !== undefined) return token
  throw new RfaasError(
    'ERR_RFAAS_UNAUTHORIZED',
    'the request has no lease token: send "Authorization: Bearer <token of the lease grant>"',
  )
}

function forLease(claims: LeaseClaims, id: string): LeaseClaims {
  if (claims.lease === id) return claims
  throw new RfaasError(
    'ERR_RFAAS_UNAUTHORIZED',
    `the token is for lease ${claims.lease}, not for ${id}`,
    { status: 403 },
  )
}
