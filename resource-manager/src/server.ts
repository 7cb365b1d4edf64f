// The resource manager's routes: messages in, decisions of the manager out.
import type { FastifyRequest } from 'fastify'
import { Type } from 'typebox'
import { watchCaller } from '../../lib/control/caller.js'
import type { Principal } from '../../lib/control/principal.js'
import {
  HarvestInfo,
  JobUsageQuery,
  JobUsageReport,
  UsageEntries,
  UsageEntriesQuery,
  UsageQuery,
  UsageReport,
} from '../../lib/control/report-schemas.js'
import {
  DrainRequest,
  HeartbeatReply,
  LeaseClosed,
  LeaseGrant,
  LeaseInfo,
  LeaseList,
  LeaseRequest,
  NodeHeartbeat,
  NodeLeaving,
  NodeList,
  NodeRegistration,
  NodeWelcome,
  RenewRequest,
  RevokeRequest,
} from '../../lib/control/schemas.js'
import type { ControlServer } from '../../lib/control/server.js'
import { RfaasError } from '../../lib/errors.js'
import type { ManagerMetrics } from './metrics.js'
import type { Office } from './office.js'

const identifier = Type.String({ pattern: '^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$' })
const LeasePath = Type.Object({ id: identifier })
const NodePath = Type.Object({ name: identifier })
const RemoveQuery = Type.Object(
  { force: Type.Optional(Type.Enum(['true', 'false'])) },
  { additionalProperties: false },
)
const NodeLeasePath = Type.Object({ name: identifier, id: identifier })
const Done = { 204: Type.Null({ description: 'done' }) }

/** Who sent a request; throws when nobody knows. */
export type Authenticate = (request: FastifyRequest) => Principal

export interface NodeTerms {
  publicKeyPem: string
  heartbeatMs: number
}

export function addLeaseRoutes(
  { app }: ControlServer,
  office: Office,
  metrics: ManagerMetrics,
  principalOf: Authenticate,
): void {
  app.post(
    '/v1/leases',
    {
      schema: {
        summary: 'Request a lease: cores and memory for a bounded time',
        body: LeaseRequest,
        response: { 201: LeaseGrant },
      },
    },
    async (request, reply) => {
      const timer = metrics.grantDuration.startTimer()
      try {
        const caller = watchCaller(request, reply)
        const grant = await office.manager.grant(principalOf(request), request.body, caller)
        metrics.grantTimes.add(timer() * 1000)
        metrics.grants.inc()
        return await reply.status(201).send(grant)
      } catch (error) {
        const code = error instanceof RfaasError ? error.code : 'ERR_RFAAS_INTERNAL'
        metrics.refusals.inc({ code })
        throw error
      }
    },
  )
  app.get(
    '/v1/leases',
    {
      schema: {
        summary: 'All leases that hold cores, and recently closed ones',
        response: { 200: LeaseList },
      },
    },
    (request) => ({ leases: office.manager.leases(principalOf(request)) }),
  )
  app.get(
    '/v1/leases/:id',
    { schema: { summary: 'One lease', params: LeasePath, response: { 200: LeaseInfo } } },
    (request) => office.manager.lease(principalOf(request), request.params.id),
  )
  app.post(
    '/v1/leases/:id/renew',
    {
      schema: {
        summary: 'Let a lease last for so long from now, never shorter than it would',
        params: LeasePath,
        body: RenewRequest,
        response: { 200: LeaseGrant },
      },
    },
    (request) =>
      office.manager.renew(principalOf(request), request.params.id, request.body.durationMs),
  )
  app.delete(
    '/v1/leases/:id',
    { schema: { summary: 'Release a lease (idempotent)', params: LeasePath, response: Done } },
    async (request, reply) => {
      await office.manager.release(principalOf(request), request.params.id)
      return reply.status(204).send(null)
    },
  )
  app.post(
    '/v1/leases/:id/revoke',
    {
      schema: {
        summary: "Take a lease back on the operator's behalf (idempotent)",
        params: LeasePath,
        body: Type.Union([RevokeRequest, Type.Null()]),
        response: Done,
      },
    },
    async (request, reply) => {
      await office.manager.revoke(principalOf(request), request.params.id, request.body?.noticeMs)
      return reply.status(204).send(null)
    },
  )
  app.get(
    '/v1/usage',
    {
      schema: {
        summary: 'What closed leases used: sums per tenant',
        querystring: UsageQuery,
        response: { 200: UsageReport },
      },
    },
    async (request) => ({
      tenants: await office.manager.usage.sums(principalOf(request), request.query),
    }),
  )
  app.get(
    '/v1/usage/entries',
    {
      schema: {
        summary: 'What closed leases used: the ledger itself, page by page',
        querystring: UsageEntriesQuery,
        response: { 200: UsageEntries },
      },
    },
    (request) => office.manager.usage.entries(principalOf(request), request.query),
  )
  app.get(
    '/v1/usage/jobs',
    {
      schema: {
        summary: 'What leases had of each harvest job, and what was idle: it adds up',
        querystring: JobUsageQuery,
        response: { 200: JobUsageReport },
      },
    },
    (request) => office.manager.jobs.usage(principalOf(request), request.query),
  )
}

export function addNodeRoutes(
  server: ControlServer,
  office: Office,
  terms: NodeTerms,
  principalOf: Authenticate,
): void {
  const { app } = server
  app.post(
    '/v1/nodes',
    {
      schema: {
        summary: 'Register a node, or register it again with what runs on it',
        body: NodeRegistration,
        response: { 200: NodeWelcome },
      },
    },
    async (request) => ({
      publicKey: terms.publicKeyPem,
      heartbeatMs: terms.heartbeatMs,
      ...(await office.manager.register(principalOf(request), request.body)),
    }),
  )
  app.get('/v1/nodes', { schema: { summary: 'All nodes', response: { 200: NodeList } } }, () => ({
    nodes: office.manager.nodes(),
  }))
  app.delete(
    '/v1/nodes/:name',
    {
      schema: {
        summary: 'Forget a node that is not up, or any with `force`: its leases are closed as lost',
        params: NodePath,
        querystring: RemoveQuery,
        response: Done,
      },
    },
    async (request, reply) => {
      const force = request.query.force === 'true'
      await office.manager.maintenance.remove(principalOf(request), request.params.name, force)
      return reply.status(204).send(null)
    },
  )
  app.post(
    '/v1/nodes/:name/drain',
    {
      schema: {
        summary: 'Grant nothing new on a node; with `noticeMs`, take its leases back (idempotent)',
        params: NodePath,
        body: Type.Union([DrainRequest, Type.Null()]),
        response: Done,
      },
    },
    async (request, reply) => {
      const { name } = request.params
      await office.manager.maintenance.drain(principalOf(request), name, request.body?.noticeMs)
      return reply.status(204).send(null)
    },
  )
  app.post(
    '/v1/nodes/:name/undrain',
    {
      schema: {
        summary: 'Grant on a node again (idempotent)',
        params: NodePath,
        response: Done,
      },
    },
    async (request, reply) => {
      await office.manager.maintenance.undrain(principalOf(request), request.params.name)
      return reply.status(204).send(null)
    },
  )
  app.post(
    '/v1/nodes/:name/heartbeat',
    {
      schema: {
        summary: 'A sign of life; 404 asks the node to register again',
        params: NodePath,
        body: NodeHeartbeat,
        response: { 200: HeartbeatReply },
      },
    },
    (request) => office.manager.heartbeat(principalOf(request), request.params.name, request.body),
  )
  app.post(
    '/v1/nodes/:name/leave',
    {
      schema: {
        summary: 'The node ends: its leases have notice, or without notice, it has ended',
        params: NodePath,
        body: NodeLeaving,
        response: Done,
      },
    },
    async (request, reply) => {
      await office.manager.leave(principalOf(request), request.params.name, request.body)
      return reply.status(204).send(null)
    },
  )
  app.get(
    '/v1/nodes/:name/events',
    {
      schema: {
        summary: 'Server-sent events to a node: `revoking` and `end`, with the lease',
        params: NodePath,
      },
    },
    (request, reply) =>
      office.manager.attach(principalOf(request), request.params.name, () =>
        server.eventStream(reply),
      ),
  )
  app.post(
    '/v1/nodes/:name/leases/:id/active',
    {
      schema: {
        summary: 'The node runs an executor for the lease (idempotent)',
        params: NodeLeasePath,
        response: Done,
      },
    },
    async (request, reply) => {
      await office.manager.activate(principalOf(request), request.params.name, request.params.id)
      return reply.status(204).send(null)
    },
  )
  app.post(
    '/v1/nodes/:name/leases/:id/closed',
    {
      schema: {
        summary: 'The node has ended the lease; its cores are free again (idempotent)',
        params: NodeLeasePath,
        body: LeaseClosed,
        response: Done,
      },
    },
    async (request, reply) => {
      await office.manager.closed(
        principalOf(request),
        request.params.name,
        request.params.id,
        request.body,
      )
      return reply.status(204).send(null)
    },
  )
}

/** `info`: what the source of nodes sees and does now. */
export function addHarvestRoute({ app }: ControlServer, info: () => HarvestInfo): void {
  app.get(
    '/v1/harvest',
    {
      schema: {
        summary: 'What the batch system runs, what it leaves idle, and what is harvested',
        response: { 200: HarvestInfo },
      },
    },
    info,
  )
}
