// The resource manager's routes: messages in, decisions of the manager out.
import { Type } from 'typebox'
import type { Asker } from '../../lib/control/operations.js'
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

/** Who sent a request; throws when nobody knows. */
export type Authenticate = (asker: Asker) => Principal

export interface NodeTerms {
  publicKeyPem: string
  heartbeatMs: number
}

export function addLeaseRoutes(
  server: ControlServer,
  office: Office,
  metrics: ManagerMetrics,
  principalOf: Authenticate,
): void {
  server.operation({
    method: 'POST',
    path: '/v1/leases',
    summary: 'Request a lease: cores and memory for a bounded time',
    body: LeaseRequest,
    status: 201,
    answer: LeaseGrant,
    handle: async ({ asker, body, caller }) => {
      const timer = metrics.grantDuration.startTimer()
      try {
        const grant = await office.manager.grant(principalOf(asker), body, caller())
        metrics.grantTimes.add(timer() * 1000)
        metrics.grants.inc()
        return grant
      } catch (error) {
        const code = error instanceof RfaasError ? error.code : 'ERR_RFAAS_INTERNAL'
        metrics.refusals.inc({ code })
        throw error
      }
    },
  })
  server.operation({
    method: 'GET',
    path: '/v1/leases',
    summary: 'All leases that hold cores, and recently closed ones',
    answer: LeaseList,
    handle: ({ asker }) => ({ leases: office.manager.leases(principalOf(asker)) }),
  })
  server.operation({
    method: 'GET',
    path: '/v1/leases/:id',
    summary: 'One lease',
    params: LeasePath,
    answer: LeaseInfo,
    handle: ({ asker, params }) => office.manager.lease(principalOf(asker), params.id),
  })
  server.operation({
    method: 'POST',
    path: '/v1/leases/:id/renew',
    summary: 'Let a lease last for so long from now, never shorter than it would',
    params: LeasePath,
    body: RenewRequest,
    answer: LeaseGrant,
    handle: ({ asker, params, body }) =>
      office.manager.renew(principalOf(asker), params.id, body.durationMs),
  })
  server.operation({
    method: 'DELETE',
    path: '/v1/leases/:id',
    summary: 'Release a lease (idempotent)',
    params: LeasePath,
    handle: async ({ asker, params }) => {
      await office.manager.release(principalOf(asker), params.id)
    },
  })
  server.operation({
    method: 'POST',
    path: '/v1/leases/:id/revoke',
    summary: "Take a lease back on the operator's behalf (idempotent)",
    params: LeasePath,
    body: Type.Union([RevokeRequest, Type.Null()]),
    handle: async ({ asker, params, body }) => {
      await office.manager.revoke(principalOf(asker), params.id, body?.noticeMs)
    },
  })
  server.operation({
    method: 'GET',
    path: '/v1/usage',
    summary: 'What closed leases used: sums per tenant',
    query: UsageQuery,
    answer: UsageReport,
    handle: async ({ asker, query }) => ({
      tenants: await office.manager.usage.sums(principalOf(asker), query),
    }),
  })
  server.operation({
    method: 'GET',
    path: '/v1/usage/entries',
    summary: 'What closed leases used: the ledger itself, page by page',
    query: UsageEntriesQuery,
    answer: UsageEntries,
    handle: ({ asker, query }) => office.manager.usage.entries(principalOf(asker), query),
  })
  server.operation({
    method: 'GET',
    path: '/v1/usage/jobs',
    summary: 'What leases had of each harvest job, and what was idle: it adds up',
    query: JobUsageQuery,
    answer: JobUsageReport,
    handle: ({ asker, query }) => office.manager.jobs.usage(principalOf(asker), query),
  })
}

export function addNodeRoutes(
  server: ControlServer,
  office: Office,
  terms: NodeTerms,
  principalOf: Authenticate,
): void {
  server.operation({
    method: 'POST',
    path: '/v1/nodes',
    summary: 'Register a node, or register it again with what runs on it',
    body: NodeRegistration,
    answer: NodeWelcome,
    handle: async ({ asker, body }) => ({
      publicKey: terms.publicKeyPem,
      heartbeatMs: terms.heartbeatMs,
      ...(await office.manager.register(principalOf(asker), body)),
    }),
  })
  server.operation({
    method: 'GET',
    path: '/v1/nodes',
    summary: 'All nodes',
    answer: NodeList,
    handle: () => ({
      nodes: office.manager.nodes(),
    }),
  })
  server.operation({
    method: 'DELETE',
    path: '/v1/nodes/:name',
    summary: 'Forget a node that is not up, or any with `force`: its leases are closed as lost',
    params: NodePath,
    query: RemoveQuery,
    handle: async ({ asker, params, query }) => {
      const force = query.force === 'true'
      await office.manager.maintenance.remove(principalOf(asker), params.name, force)
    },
  })
  server.operation({
    method: 'POST',
    path: '/v1/nodes/:name/drain',
    summary: 'Grant nothing new on a node; with `noticeMs`, take its leases back (idempotent)',
    params: NodePath,
    body: Type.Union([DrainRequest, Type.Null()]),
    handle: async ({ asker, params, body }) => {
      const { name } = params
      await office.manager.maintenance.drain(principalOf(asker), name, body?.noticeMs)
    },
  })
  server.operation({
    method: 'POST',
    path: '/v1/nodes/:name/undrain',
    summary: 'Grant on a node again (idempotent)',
    params: NodePath,
    handle: async ({ asker, params }) => {
      await office.manager.maintenance.undrain(principalOf(asker), params.name)
    },
  })
  server.operation({
    method: 'POST',
    path: '/v1/nodes/:name/heartbeat',
    summary: 'A sign of life; 404 asks the node to register again',
    params: NodePath,
    body: NodeHeartbeat,
    answer: HeartbeatReply,
    handle: ({ asker, params, body }) =>
      office.manager.heartbeat(principalOf(asker), params.name, body),
  })
  server.operation({
    method: 'POST',
    path: '/v1/nodes/:name/leave',
    summary: 'The node ends: its leases have notice, or without notice, it has ended',
    params: NodePath,
    body: NodeLeaving,
    handle: async ({ asker, params, body }) => {
      await office.manager.leave(principalOf(asker), params.name, body)
    },
  })
  server.operation({
    method: 'GET',
    path: '/v1/nodes/:name/events',
    summary: 'Events to a node: `prepare`, `revoking` and `end`, with the lease',
    params: NodePath,
    answersEvents: true,
    handle: ({ asker, params, events }) =>
      office.manager.attach(principalOf(asker), params.name, events),
  })
  server.operation({
    method: 'POST',
    path: '/v1/nodes/:name/leases/:id/active',
    summary: 'The node runs an executor for the lease (idempotent)',
    params: NodeLeasePath,
    handle: async ({ asker, params }) => {
      await office.manager.activate(principalOf(asker), params.name, params.id)
    },
  })
  server.operation({
    method: 'POST',
    path: '/v1/nodes/:name/leases/:id/closed',
    summary: 'The node has ended the lease; its cores are free again (idempotent)',
    params: NodeLeasePath,
    body: LeaseClosed,
    handle: async ({ asker, params, body }) => {
      await office.manager.closed(principalOf(asker), params.name, params.id, body)
    },
  })
}

/** `info`: what the source of nodes sees and does now. */
export function addHarvestRoute(server: ControlServer, info: () => HarvestInfo): void {
  server.operation({
    method: 'GET',
    path: '/v1/harvest',
    summary: 'What the batch system runs, what it leaves idle, and what is harvested',
    answer: HarvestInfo,
    handle: info,
  })
}
