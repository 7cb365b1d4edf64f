// What the model-based test does to the resource manager: each step changes the model and the real
// thing, and both are compared. Steps pick their subjects by a number, so that they stay meaningful
// when a failing sequence is made shorter.
import fc, { type AsyncCommand } from 'fast-check'
import { expect } from 'vitest'
import { isLive, isOver, nextState } from '../../lib/control/lease-states.js'
import type { LeaseGrant, LeaseRequest } from '../../lib/control/schemas.js'
import {
  MiB,
  nodeMemoryBytes,
  operator,
  tenants,
  type Model,
  type ModelNode,
  type ModelPart,
} from './model.js'
import type { System } from './system.js'

type Step = AsyncCommand<Model, System, true>

/** A step with its arguments, which a failure prints. */
function step(name: string, run: (model: Model, system: System) => Promise<void>): Step {
  return {
    check: () => Promise.resolve(true),
    run: async (model, system) => {
      model.tick()
      await run(model, system)
      await system.compare(model)
    },
    toString: () => name,
  }
}

function pick<T>(from: Iterable<T>, which: number): T | undefined {
  const all = [...from]
  return all[which % Math.max(1, all.length)]
}

const code = (expected: string): unknown => expect.objectContaining({ code: expected })

// ── nodes ─────────────────────────────────────────────────────────────────────────────────────────

let sequence = 0

async function register(model: Model, system: System, node: ModelNode): Promise<void> {
  const { name, hostId, cores } = node
  const known = model.nodes.get(name)
  sequence += 1
  const registration = {
    name,
    url: 'http://127.0.0.1:7071',
    cores,
    memoryBytes: nodeMemoryBytes,
    providers: [],
    hostId,
    sequence,
    leases: [...node.running],
  }
  if (known?.up === true && known.hostId !== hostId) {
    await expect(system.manager.register(operator, registration)).rejects.toEqual(
      code('ERR_RFAAS_INVALID_ARGUMENT'),
    )
    return
  }
  const welcome = await system.manager.register(operator, registration)
  for (const part of model.heldOn(name)) {
    const runs = node.running.has(part.id)
    const room = part.cores.every((core) => cores.includes(core))
    const foreign = known?.hostId !== hostId
    if (foreign || (!runs && (part.state !== 'granted' || !room))) model.close(part)
    else if (isLive(part.state) && !room) model.apply(part, 'lose')
  }
  const draining = known?.draining ?? false
  const now = { up: true, heardMs: model.nowMs, draining, removed: false }
  model.nodes.set(name, { ...node, ...now, sequence })
  const held = model.heldOn(name)
  const live = held.filter(({ state }) => isLive(state)).map(({ id }) => id)
  // Whoever waited for this node may have been granted a lease on it by now.
  expect(welcome.live).toEqual(expect.arrayContaining(live))
  expect(welcome.epoch).toBeGreaterThanOrEqual(model.epoch)
  expect(welcome.nowMs).toBe(model.nowMs)
  const over = held.filter(({ state }) => isOver(state)).map(({ id }) => id)
  expect(welcome.end).toEqual(expect.arrayContaining(over))
  for (const id of welcome.end) expect(live).not.toContain(id)
  const past = [...node.running].filter((id) => !isLive(model.parts.get(id)!.state))
  expect(welcome.end).toEqual(expect.arrayContaining(past))
}

const nodeName = fc.constantFrom('a', 'b', 'c')

const nodeComes = fc
  .record({
    name: nodeName,
    host: fc.constantFrom('h1', 'h1', 'h1', 'h2'),
    cores: fc.integer({ min: 1, max: 4 }),
  })
  .map(({ name, host, cores }) =>
    step(`node ${name} of ${host} comes with ${cores} cores and nothing on it`, (model, system) =>
      register(model, system, {
        name,
        hostId: host,
        cores: [0, 1, 2, 3].slice(0, cores),
        up: true,
        heardMs: 0,
        sequence: 0,
        draining: false,
        removed: false,
        running: new Set(),
      }),
    ),
  )

const nodeComesBack = nodeName.map((name) =>
  step(`node ${name} registers again with what it runs`, async (model, system) => {
    const node = model.nodes.get(name)
    if (node !== undefined) await register(model, system, node)
  }),
)

const registrationReplayed = nodeName.map((name) =>
  step(`an old registration of node ${name} arrives again`, async (model, system) => {
    const node = model.nodes.get(name)
    if (node === undefined) return
    const { hostId } = node
    const replayed = {
      name,
      url: 'http://127.0.0.1:1',
      cores: [9],
      memoryBytes: 1,
      providers: [],
      hostId,
    }
    const registration = { ...replayed, sequence: node.sequence, leases: [] }
    await expect(system.manager.register(operator, registration)).rejects.toEqual(
      code('ERR_RFAAS_INVALID_ARGUMENT'),
    )
  }),
)

const heartbeat = nodeName.map((name) =>
  step(`node ${name} beats`, async (model, system) => {
    const node = model.nodes.get(name)
    const { hostId = 'h1', running = new Set<string>() } = node ?? {}
    const beat = (): unknown =>
      system.manager.heartbeat(operator, name, { hostId, leases: [...running] })
    if (node?.up !== true) {
      expect(beat).toThrow(code('ERR_RFAAS_NOT_FOUND') as Error)
      return
    }
    beat()
    node.heardMs = model.nowMs
  }),
)

const activate = fc.nat().map((which) =>
  step(`a node starts an executor for lease ${which}`, async (model, system) => {
    const part = pick(model.parts.values(), which)
    if (part === undefined) return
    heard(model, part.node)
    const activated = system.manager.activate(operator, part.node, part.id)
    if (model.nodes.get(part.node)!.removed) {
      await expect(activated).rejects.toEqual(code('ERR_RFAAS_NOT_FOUND'))
      return
    }
    if (nextState(part.state, 'activate') === undefined) {
      await expect(activated).rejects.toEqual(code('ERR_RFAAS_LEASE_ENDED'))
      return
    }
    await activated
    model.apply(part, 'activate')
    model.nodes.get(part.node)!.running.add(part.id)
  }),
)

const close = fc
  .record({ which: fc.nat(), heldMs: fc.nat(100_000), times: fc.integer({ min: 1, max: 3 }) })
  .map(({ which, heldMs, times }) =>
    step(`a node closes lease ${which}, ${times} times`, async (model, system) => {
      const part = pick(model.parts.values(), which)
      if (part === undefined) return
      heard(model, part.node)
      const report = (): Promise<void> =>
        system.manager.closed(operator, part.node, part.id, { heldMs, cpuMs: heldMs })
      if (model.nodes.get(part.node)!.removed) {
        await expect(report()).rejects.toEqual(code('ERR_RFAAS_NOT_FOUND'))
        return
      }
      if (part.state !== 'closed') model.close(part)
      model.nodes.get(part.node)!.running.delete(part.id)
      await Promise.all(Array.from({ length: times }, report))
    }),
  )

const drained = fc.tuple(nodeName, fc.option(fc.nat(30_000))).map(([name, noticeMs]) =>
  step(`node ${name} is drained with ${noticeMs} ms of notice`, async (model, system) => {
    const node = model.nodes.get(name)
    const drain = system.manager.maintenance.drain(operator, name, noticeMs ?? undefined)
    if (node?.removed !== false) {
      await expect(drain).rejects.toEqual(code('ERR_RFAAS_NOT_FOUND'))
      return
    }
    await drain
    node.draining = true
    if (noticeMs === null) return
    for (const part of model.heldOn(name)) takeBack(model, part, noticeMs)
    model.tick()
  }),
)

const undrained = nodeName.map((name) =>
  step(`node ${name} is undrained`, async (model, system) => {
    const node = model.nodes.get(name)
    if (node?.removed !== false) return
    await system.manager.maintenance.undrain(operator, name)
    node.draining = false
  }),
)

const removed = fc.tuple(nodeName, fc.boolean()).map(([name, force]) =>
  step(`node ${name} is removed${force ? ' by force' : ''}`, async (model, system) => {
    const node = model.nodes.get(name)
    const remove = system.manager.maintenance.remove(operator, name, force)
    if (node?.removed !== false) {
      await expect(remove).rejects.toEqual(code('ERR_RFAAS_NOT_FOUND'))
    } else if (node.up && !force) {
      await expect(remove).rejects.toEqual(code('ERR_RFAAS_INVALID_ARGUMENT'))
    } else {
      await remove
      for (const part of model.heldOn(name)) model.close(part)
      Object.assign(node, { removed: true, up: false, draining: false })
    }
  }),
)

function takeBack(model: Model, part: ModelPart, noticeMs: number): void {
  model.apply(part, 'revoke')
  if (part.state !== 'revoking') return
  part.revokeAtMs = Math.min(part.revokeAtMs, model.nowMs + noticeMs)
}

function heard(model: Model, name: string): void {
  const node = model.nodes.get(name)!
  if (node.up) node.heardMs = model.nowMs
}

// ── clients ───────────────────────────────────────────────────────────────────────────────────────

const wanted = fc.record({
  tenant: fc.nat({ max: tenants.length - 1 }),
  cores: fc.integer({ min: 1, max: 6 }),
  memory: fc.integer({ min: 1, max: 24 }),
  seconds: fc.integer({ min: 1, max: 60 }),
  nodes: fc.integer({ min: 1, max: 3 }),
})

const grant = wanted.map((want) =>
  step(`tenant ${want.tenant} requests ${JSON.stringify(want)}`, async (model, system) => {
    const { principal, request } = requestOf(want)
    await requestNow(model, system, principal, request)
  }),
)

const grantTwice = fc.tuple(wanted, fc.stringMatching(/^[a-z]{16}$/)).map(([want, requestId]) =>
  step(`tenant ${want.tenant} requests twice ${JSON.stringify(want)}`, async (model, system) => {
    const { principal, request } = requestOf({ ...want, requestId })
    if (model.requests.has(requestId)) return
    const twice = await Promise.allSettled([
      system.manager.grant(principal, request),
      system.manager.grant(principal, request),
    ])
    const [first, second] = twice
    if (first.status === 'rejected') return expectRefusal(model, principal, request, first.reason)
    model.grant(principal, request, first.value)
    expect(second).toMatchObject({ status: 'fulfilled', value: { lease: first.value.lease } })
  }),
)

const grantRepeated = fc.nat().map((which) =>
  step(`request ${which} is repeated`, async (model, system) => {
    const made = pick(model.requests.values(), which)
    if (made === undefined) return
    const again = system.manager.grant(made.principal, made.request)
    const live = model.partsOf(made.lease).some(({ state }) => isLive(state))
    if (live) expect((await again).lease.id).toBe(made.lease)
    else await expect(again).rejects.toEqual(code('ERR_RFAAS_LEASE_ENDED'))
  }),
)

const grantInLine = fc.tuple(wanted, fc.integer({ min: 1, max: 60_000 })).map(([want, waitMs]) =>
  step(
    `tenant ${want.tenant} waits ${waitMs} ms for ${JSON.stringify(want)}`,
    async (model, system) => {
      const { principal, request } = requestOf({ ...want, waitMs })
      const caller = new AbortController()
      const outcome = system.manager.grant(principal, request, caller.signal)
      const wait = { principal, request, deadlineMs: model.nowMs + waitMs, caller, outcome }
      if (!withinQuotaAlone(model, principal, request)) {
        await expect(outcome).rejects.toEqual(code('ERR_RFAAS_QUOTA'))
        return
      }
      follow(model, wait)
    },
  ),
)

const hangUp = fc.nat().map((which) =>
  step(`caller ${which} hangs up`, async (model) => {
    const wait = pick(model.waits, which)
    if (wait === undefined) return
    model.waits = model.waits.filter((other) => other !== wait)
    wait.caller.abort()
    await expect(wait.outcome).rejects.toEqual(code('ERR_RFAAS_ABORTED'))
  }),
)

const renew = fc
  .record({ which: fc.nat(), seconds: fc.integer({ min: 1, max: 120 }) })
  .map(({ which, seconds }) =>
    step(`lease ${which} is renewed for ${seconds} s`, async (model, system) => {
      const found = pick(model.parts.values(), which)
      if (found === undefined) return
      const { lease, tenant } = found
      const principal = tenants.find((other) => other.tenant === tenant)!
      const renewed = system.manager.renew(principal, lease, seconds * 1000)
      const parts = model
        .partsOf(lease)
        .filter(({ state }) => nextState(state, 'renew') !== undefined)
      if (parts.length === 0) {
        await expect(renewed).rejects.toThrow(/request a new one/)
        return
      }
      const { lease: info, tokens } = await renewed
      expect(info.epoch).toBeGreaterThan(model.epoch)
      model.epoch = info.epoch
      for (const part of parts) {
        part.epoch = info.epoch
        part.expiresAtMs = Math.max(part.expiresAtMs, model.nowMs + seconds * 1000)
      }
      const live = model.partsOf(lease).map(({ state }) => isLive(state))
      expect(tokens.map((token) => token !== null)).toEqual(live)
    }),
  )

const release = fc.nat().map((which) =>
  step(`lease ${which} is released`, async (model, system) => {
    const found = pick(model.parts.values(), which)
    if (found === undefined) return
    const { lease, tenant } = found
    const other = tenants.find((principal) => principal.tenant !== tenant)!
    await expect(system.manager.release(other, lease)).rejects.toEqual(code('ERR_RFAAS_NOT_FOUND'))
    const own = tenants.find((principal) => principal.tenant === tenant)!
    await Promise.all([system.manager.release(own, lease), system.manager.release(own, lease)])
    for (const part of model.partsOf(lease)) model.apply(part, 'release')
  }),
)

const revoke = fc
  .record({ which: fc.nat(), noticeMs: fc.integer({ min: 0, max: 30_000 }) })
  .map(({ which, noticeMs }) =>
    step(`lease ${which} is taken back within ${noticeMs} ms`, async (model, system) => {
      const found = pick(model.parts.values(), which)
      if (found === undefined) return
      for (const tenant of tenants) {
        const refused = system.manager.revoke(tenant, found.lease, noticeMs)
        await expect(refused).rejects.toEqual(code('ERR_RFAAS_FORBIDDEN'))
      }
      await system.manager.revoke(operator, found.lease, noticeMs)
      for (const part of model.partsOf(found.lease)) {
        takeBack(model, part, noticeMs)
      }
      model.tick()
    }),
  )

interface Want {
  tenant: number
  cores: number
  memory: number
  seconds: number
  nodes: number
  waitMs?: number
  requestId?: string
}

function requestOf({ tenant, memory, seconds, ...rest }: Want) {
  const request: LeaseRequest = { ...rest, memoryBytes: memory * MiB, durationMs: seconds * 1000 }
  return { principal: tenants[tenant]!, request }
}

type Principal = (typeof tenants)[number]

async function requestNow(
  model: Model,
  system: System,
  principal: Principal,
  request: LeaseRequest,
): Promise<void> {
  let granted: LeaseGrant
  try {
    granted = await system.manager.grant(principal, request)
  } catch (error) {
    return expectRefusal(model, principal, request, error)
  }
  model.grant(principal, request, granted)
}

function expectRefusal(
  model: Model,
  principal: Principal,
  request: LeaseRequest,
  error: unknown,
): void {
  if (!model.withinQuota(principal, request)) {
    expect(error).toEqual(code('ERR_RFAAS_QUOTA'))
    return
  }
  expect(error).toEqual(code('ERR_RFAAS_NO_CAPACITY'))
  // Only those who came before may have kept free cores from it.
  if (model.waits.length === 0) expect(model.fits(request)).toBe(false)
}

function withinQuotaAlone(
  _model: Model,
  { quota = {} }: Principal,
  request: LeaseRequest,
): boolean {
  const { maxCores = Infinity, maxMemoryBytes = Infinity } = quota
  return request.cores <= maxCores && request.memoryBytes <= maxMemoryBytes
}

function follow(model: Model, wait: Omit<Model['waits'][number], 'settled'>): void {
  const followed: Model['waits'][number] = { ...wait }
  model.waits.push(followed)
  wait.outcome.then(
    (grant) => (followed.settled = { grant }),
    (error: unknown) => (followed.settled = { error }),
  )
}

// ── time and failures ─────────────────────────────────────────────────────────────────────────────

const timePasses = fc.integer({ min: 1, max: 20_000 }).map((ms) =>
  step(`${ms} ms pass`, async (model) => {
    model.nowMs += ms
  }),
)

const nodeCrashes = nodeName.map((name) =>
  step(`node ${name} crashes: nothing runs on it any more`, async (model) => {
    model.nodes.get(name)?.running.clear()
  }),
)

const managerRestarts = fc.constant(
  step('the resource manager restarts', async (model, system) => {
    await system.restart()
    for (const node of model.nodes.values()) node.up = false
    const waits = model.waits.splice(0)
    for (const { outcome } of waits) {
      await expect(outcome).rejects.toEqual(code('ERR_RFAAS_CLOSED'))
    }
  }),
)

export const steps: fc.Arbitrary<Step>[] = [
  nodeComes,
  nodeComes,
  nodeComesBack,
  registrationReplayed,
  heartbeat,
  heartbeat,
  activate,
  activate,
  close,
  close,
  drained,
  undrained,
  removed,
  grant,
  grant,
  grantTwice,
  grantRepeated,
  grantInLine,
  hangUp,
  renew,
  release,
  revoke,
  timePasses,
  nodeCrashes,
  managerRestarts,
]
