// A simple model of the resource manager: what every lease, node and ledger entry must look like after
// each step. It does not choose cores; it checks those that the manager chose.
import { expect } from 'vitest'
import { isLive, isOver, nextState, type LeaseEvent } from '../../lib/control/lease-states.js'
import type { Principal } from '../../lib/control/principal.js'
import type { LeaseGrant, LeaseRequest, LeaseState } from '../../lib/control/schemas.js'

export const MiB = 2 ** 20
export const nodeTimeoutMs = 10_000
export const nodeMemoryBytes = 64 * MiB

export const operator: Principal = { tenant: 'ops', role: 'operator', keyId: 'operator' }
/** One tenant with a quota and one without. */
export const tenants: readonly Principal[] = [
  {
    tenant: 'small',
    role: 'tenant',
    keyId: 'a',
    quota: { maxCores: 4, maxMemoryBytes: 20 * MiB, maxLeases: 3 },
  },
  { tenant: 'large', role: 'tenant', keyId: 'b' },
]

export interface ModelPart {
  id: string
  lease: string
  tenant: string
  node: string
  cores: number[]
  memoryBytes: number
  state: LeaseState
  epoch: number
  grantedAtMs: number
  expiresAtMs: number
  revokeAtMs: number
  endedAtMs?: number
}

export interface ModelNode {
  name: string
  hostId: string
  cores: number[]
  up: boolean
  heardMs: number
  sequence: number
  draining: boolean
  /** By the operator: it is known no more, what runs on it does not know. */
  removed: boolean
  /** Parts with executors, as the node itself knows. */
  running: Set<string>
}

export interface Wait {
  principal: Principal
  request: LeaseRequest
  deadlineMs: number
  caller: AbortController
  outcome: Promise<LeaseGrant>
  settled?: { grant?: LeaseGrant; error?: unknown }
}

export class Model {
  nowMs = 1_000_000
  epoch = 0
  readonly parts = new Map<string, ModelPart>()
  readonly nodes = new Map<string, ModelNode>()
  /** In order of arrival. */
  waits: Wait[] = []
  /** leaseMs by part. */
  readonly ledger = new Map<string, number>()
  readonly requests = new Map<
    string,
    { principal: Principal; request: LeaseRequest; lease: string }
  >()

  /** What time does by itself. */
  tick(): void {
    for (const node of this.nodes.values()) {
      if (this.nowMs - node.heardMs > nodeTimeoutMs) node.up = false
    }
    for (const part of this.parts.values()) {
      if (!isLive(part.state)) continue
      if (part.expiresAtMs <= this.nowMs) {
        this.apply(part, 'expire', part.expiresAtMs)
      } else if (part.state === 'revoking' && part.revokeAtMs <= this.nowMs) {
        this.apply(part, 'finish', part.revokeAtMs)
      }
    }
  }

  apply(part: ModelPart, event: LeaseEvent, atMs = this.nowMs): void {
    const state = nextState(part.state, event)
    expect(state, `${event} in state ${part.state}`).toBeDefined()
    if (isOver(state!) && !isOver(part.state)) part.endedAtMs = atMs
    part.state = state!
  }

  close(part: ModelPart): void {
    const endMs = Math.min(part.endedAtMs ?? this.nowMs, part.expiresAtMs)
    expect(this.ledger.has(part.id)).toBe(false)
    this.ledger.set(part.id, Math.max(0, endMs - part.grantedAtMs))
    part.state = 'closed'
  }

  /** A new lease: nothing of it may be held, and nobody who came before may have wanted it. */
  grant(principal: Principal, request: LeaseRequest, { lease }: LeaseGrant): void {
    expect(lease.epoch).toBeGreaterThan(this.epoch)
    this.epoch = lease.epoch
    expect(lease.tenant).toBe(principal.tenant)
    const cores = lease.parts.flatMap((part) => part.cores)
    expect(cores).toHaveLength(request.cores)
    expect(new Set(lease.parts.map(({ node }) => node)).size).toBe(lease.parts.length)
    expect(lease.parts.length).toBeLessThanOrEqual(request.nodes ?? 1)
    for (const part of lease.parts) {
      const node = this.nodes.get(part.node)
      expect([node?.up, node?.draining]).toEqual([true, false])
      const free = this.freeOn(node!)
      expect(free.cores).toEqual(expect.arrayContaining(part.cores))
      expect(free.memoryBytes).toBeGreaterThanOrEqual(part.memoryBytes)
    }
    for (const older of this.waits) {
      if (older.request === request) break
      if (older.principal.quota !== undefined) continue
      for (const { node } of lease.parts) expect(this.couldUse(older.request, node)).toBe(false)
    }
    for (const { id, node, cores: own, memoryBytes } of lease.parts) {
      expect(this.parts.has(id)).toBe(false)
      this.parts.set(id, {
        id,
        lease: lease.id,
        tenant: principal.tenant,
        node,
        cores: own,
        memoryBytes,
        state: 'granted',
        epoch: lease.epoch,
        grantedAtMs: this.nowMs,
        expiresAtMs: this.nowMs + request.durationMs,
        revokeAtMs: Infinity,
      })
    }
    const { requestId } = request
    if (requestId !== undefined)
      this.requests.set(requestId, { principal, request, lease: lease.id })
  }

  partsOf(lease: string): ModelPart[] {
    return [...this.parts.values()].filter((part) => part.lease === lease)
  }

  heldOn(node: string): ModelPart[] {
    return [...this.parts.values()].filter((part) => part.node === node && part.state !== 'closed')
  }

  freeOn(node: ModelNode): { cores: number[]; memoryBytes: number } {
    const held = this.heldOn(node.name)
    const taken = new Set(held.flatMap(({ cores }) => cores))
    return {
      cores: node.cores.filter((core) => !taken.has(core)),
      memoryBytes: nodeMemoryBytes - held.reduce((sum, part) => sum + part.memoryBytes, 0),
    }
  }

  lending(): ModelNode[] {
    return [...this.nodes.values()].filter(({ up, draining }) => up && !draining)
  }

  /** Whether what is free now would do. */
  fits(request: LeaseRequest): boolean {
    const free = this.lending().map((node) => this.freeOn(node))
    return fitsOn(request, free)
  }

  withinQuota({ tenant, quota = {} }: Principal, request?: LeaseRequest): boolean {
    const held = [...this.parts.values()].filter(
      (part) => part.tenant === tenant && part.state !== 'closed',
    )
    const leases = new Set(held.map(({ lease }) => lease)).size + (request === undefined ? 0 : 1)
    const cores = held.flatMap((part) => part.cores).length + (request?.cores ?? 0)
    const bytes = held.reduce((sum, part) => sum + part.memoryBytes, request?.memoryBytes ?? 0)
    return (
      leases <= (quota.maxLeases ?? Infinity) &&
      cores <= (quota.maxCores ?? Infinity) &&
      bytes <= (quota.maxMemoryBytes ?? Infinity)
    )
  }

  /** Whether a waiting request would be served on this node, were it empty. */
  couldUse(request: LeaseRequest, name: string): boolean {
    const empty = this.lending().map(({ name: node, cores }) => {
      return { node, cores, memoryBytes: nodeMemoryBytes }
    })
    const alone = empty.filter(({ node }) => node === name)
    return (
      fitsOn({ ...request, nodes: 1 }, alone) ||
      ((request.nodes ?? 1) > 1 && fitsOn(request, empty))
    )
  }
}

function fitsOn(
  { cores, memoryBytes, nodes = 1 }: LeaseRequest,
  free: readonly { cores: number[]; memoryBytes: number }[],
): boolean {
  if (free.some((node) => node.cores.length >= cores && node.memoryBytes >= memoryBytes))
    return true
  if (nodes === 1) return false
  const perCore = Math.floor(memoryBytes / cores)
  const room = free.map((node) =>
    Math.min(node.cores.length, Math.floor(node.memoryBytes / perCore)),
  )
  const most = room.sort((a, b) => b - a).slice(0, nodes)
  return most.reduce((sum, count) => sum + count, 0) >= cores
}
