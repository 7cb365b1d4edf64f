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
import type { Asker } from '../../lib/control/operations.js'
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
  const claimsOf = (asker: Asker): LeaseClaims => {
    try {
      return leases.verify(bearer(asker))
    } catch (error) {
      if (!(error instanceof RfaasError) || error.code !== 'ERR_RFAAS_UNAUTHORIZED') throw error
      throw server.door.refusal(asker, error, {})
    }
  }

  addCodeRoutes(server, services, claimsOf)

  const access = { security: 'leaseToken', admit: claimsOf }
  server.operation({
    method: 'POST',
    path: '/v1/executors',
    summary: 'Start a function package on the cores of the lease',
    ...access,
    body: ExecutorStart,
    status: 201,
    answer: ExecutorInfo,
    handle: async ({ asker, body, caller }) => {
      const claims = claimsOf(asker)
      // An answer may take as long as a worker's start.
      const signal = caller()
      await leases.admit(claims)
      const { code, ...wanted } = body
      if (code !== undefined) await takeIn(services, claims.lease, wanted.package, code)
      return leases.startExecutor(claims.lease, wanted, signal)
    },
  })
  server.operation({
    method: 'DELETE',
    path: '/v1/executors/:id',
    summary: 'Stop an executor of the lease',
    ...access,
    params: IdParams,
    handle: ({ asker, params }) => leases.stopExecutor(claimsOf(asker).lease, params.id),
  })
  server.operation({
    method: 'GET',
    path: '/v1/leases/:id/events',
    summary: 'Events: worker-lost, worker-ready, lease-revoking, lease-ended',
    ...access,
    params: IdParams,
    answersEvents: true,
    handle: async ({ asker, params, events }) => {
      const claims = forLease(claimsOf(asker), params.id)
      await leases.admit(claims)
      leases.subscribe(claims.lease, events())
    },
  })
  server.operation({
    method: 'PUT',
    path: '/v1/leases/:id/token',
    summary: 'Show the token of a renewed lease',
    ...access,
    params: IdParams,
    body: RenewedToken,
    handle: async ({ asker, params, body }) => {
      forLease(claimsOf(asker), params.id)
      await leases.admit(forLease(leases.verify(body.token), params.id))
    },
  })
  server.operation({
    method: 'DELETE',
    path: '/v1/leases/:id',
    summary: 'End the lease on this node: stops its executors and confirms it as closed',
    ...access,
    params: IdParams,
    answer: LeaseReleased,
    handle: async ({ asker, params }) => {
      const claims = forLease(claimsOf(asker), params.id)
      await leases.end(claims.lease, 'released')
      // So that whoever releases a lease finds its cores free and its use accounted for.
      return { confirmed: await services.confirmed(claims.lease) }
    },
  })
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
  claimsOf: (asker: Asker) => LeaseClaims,
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
  claimsOf: (asker: Asker) => LeaseClaims,
): (request: FastifyRequest, reply: FastifyReply, done: (error?: Error) => void) => void {
  return (request, _reply, done) => {
    claimsOf(request)
    done()
  }
}

function bearer(asker: Asker): string {
  const token = bearerOf(asker)
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
