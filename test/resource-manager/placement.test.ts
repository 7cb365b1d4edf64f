import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { schedulerNames, schedulers } from '../../resource-manager/schedulers/policies.js'
import { coresFor, Pool } from '../../resource-manager/schedulers/pool.js'
import type { Candidate, Demand } from '../../resource-manager/schedulers/scheduler.js'
import { cleanUp, grant, registeredNode, startManager } from './support.js'
import { afterEach } from 'vitest'

afterEach(cleanUp)

const MiB = 2 ** 20

type Node = { -readonly [Key in keyof Candidate]: Candidate[Key] }

function node(order: number, free: number, of: Partial<Node> = {}): Node {
  const freeCores = Array.from({ length: free }, (_, core) => core)
  return {
    ...{ name: `n${order}`, order, freeCores, freeMemoryBytes: 64 * MiB, hostId: `h${order}` },
    ...{ capacity: { cores: 8, memoryBytes: 64 * MiB }, switch: undefined, idleUntilMs: undefined },
    ...of,
  }
}

function poolOf(nodes: readonly Candidate[]): Pool {
  const pool = new Pool()
  for (const one of nodes) pool.put(one)
  return pool
}

const always = (): boolean => true

function demand(cores: number, of: Partial<Demand> = {}): Demand {
  return { cores, memoryBytes: MiB, nodes: 1, untilMs: 1000, hostId: undefined, ...of }
}

describe('whatever is free', () => {
  const nodes = fc
    .array(
      fc.record({
        free: fc.integer({ min: 0, max: 8 }),
        memoryMiB: fc.integer({ min: 0, max: 16 }),
        group: fc.integer({ min: 0, max: 3 }),
        idleUntilMs: fc.option(fc.integer({ min: 0, max: 20 }), { nil: undefined }),
      }),
      { maxLength: 12 },
    )
    .map((drawn) =>
      drawn.map(({ free, memoryMiB, group, idleUntilMs }, order) =>
        node(order, free, {
          freeMemoryBytes: memoryMiB * MiB,
          hostId: `h${group}`,
          switch: group === 3 ? undefined : `s${group % 2}`,
          idleUntilMs,
        }),
      ),
    )
  const demands = fc.record({
    cores: fc.integer({ min: 1, max: 24 }),
    memoryBytes: fc.integer({ min: MiB, max: 40 * MiB }),
    nodes: fc.integer({ min: 1, max: 5 }),
    untilMs: fc.integer({ min: 0, max: 20 }),
    hostId: fc.option(fc.constantFrom('h0', 'h1', 'elsewhere'), { nil: undefined }),
  })
  const taken = fc.array(fc.integer({ min: 0, max: 11 }), { maxLength: 4 })

  test.each(schedulerNames)(
    '%s gives all that was asked for or nothing, and no more than is free',
    (name) => {
      fc.assert(
        fc.property(nodes, demands, taken, (candidates, asked, kept) => {
          const usable = ({ order }: Candidate): boolean => !kept.includes(order)
          const parts = schedulers[name](asked, poolOf(candidates), usable)
          expect(parts !== undefined).toBe(isPossible(asked, candidates.filter(usable)))
          if (parts === undefined) return
          expect(parts.length).toBeLessThanOrEqual(asked.nodes)
          expect(new Set(parts.map((part) => part.node)).size).toBe(parts.length)
          expect(parts.flatMap(({ cores }) => cores)).toHaveLength(asked.cores)
          const bytes = parts.reduce((sum, { memoryBytes }) => sum + memoryBytes, 0)
          // What does not divide evenly is less than a byte for each core.
          expect(asked.memoryBytes - bytes).toBeGreaterThanOrEqual(0)
          expect(asked.memoryBytes - bytes).toBeLessThan(asked.cores)
          for (const part of parts) {
            const on = candidates.find((one) => one.name === part.node)!
            expect(usable(on)).toBe(true)
            expect(part.cores).toEqual(on.freeCores.slice(0, part.cores.length))
            expect(part.cores.length).toBeGreaterThan(0)
            expect(part.memoryBytes).toBeLessThanOrEqual(on.freeMemoryBytes)
          }
        }),
        { seed: 1, numRuns: 1000 },
      )
    },
  )

  test.each(schedulerNames)('%s depends on what is free now, not on how it came to be', (name) => {
    const change = fc.record({
      node: fc.integer({ min: 0, max: 11 }),
      free: fc.integer({ min: 0, max: 8 }),
      idleUntilMs: fc.option(fc.integer({ min: 0, max: 20 }), { nil: undefined }),
      group: fc.integer({ min: 0, max: 3 }),
      gone: fc.boolean(),
    })
    fc.assert(
      fc.property(nodes, fc.array(change, { maxLength: 30 }), demands, (drawn, changes, asked) => {
        const pool = poolOf(drawn)
        for (const { node: index, free, idleUntilMs, group, gone } of changes) {
          const changed = drawn[index]
          if (changed === undefined) continue
          changed.freeCores = Array.from({ length: free }, (_, core) => core)
          Object.assign(changed, { idleUntilMs, hostId: `h${group}`, switch: `s${group}` })
          pool.delete(gone ? changed.name : '')
          pool.put(changed)
        }
        const fresh = poolOf([...drawn].reverse())
        const place = (on: Pool) => schedulers[name](asked, on, always)
        // The switches are tried in the order in which their first nodes came.
        if (name !== 'locality' || asked.nodes === 1) expect(place(pool)).toEqual(place(fresh))
        expect(place(pool)).toEqual(place(pool))
        expect(pool.size).toBe(drawn.length)
      }),
      { seed: 2, numRuns: 500 },
    )
  })
})

/** By trying everything. */
function isPossible(asked: Demand, candidates: readonly Candidate[]): boolean {
  const alone = candidates.some(
    ({ freeCores, freeMemoryBytes }) =>
      freeCores.length >= asked.cores && freeMemoryBytes >= asked.memoryBytes,
  )
  if (alone || asked.nodes === 1) return alone
  const rooms = candidates
    .map(({ freeCores, freeMemoryBytes }) =>
      coresFor(asked.memoryBytes / asked.cores, {
        cores: freeCores.length,
        memoryBytes: freeMemoryBytes,
      }),
    )
    .sort((a, b) => b - a)
  return rooms.slice(0, asked.nodes).reduce((sum, room) => sum + room, 0) >= asked.cores
}

function placed(
  name: (typeof schedulerNames)[number],
  asked: Demand,
  nodes: readonly Candidate[],
): string {
  const parts = schedulers[name](asked, poolOf(nodes), always) ?? []
  return parts.map(({ node: on, cores }) => `${on}:${cores.length}`).join(' ')
}

describe('first-fit', () => {
  test('takes the first node in order of registration that has room', () => {
    expect(placed('first-fit', demand(3), [node(2, 3), node(1, 8), node(0, 2)])).toBe('n1:3')
  })

  test('divides what no node has alone among as few as possible', () => {
    const nodes = [node(0, 2), node(1, 5), node(2, 4)]
    expect(placed('first-fit', demand(8, { nodes: 3 }), nodes)).toBe('n1:5 n2:3')
    expect(placed('first-fit', demand(8), nodes)).toBe('')
  })
})

describe('best-fit', () => {
  test('leaves the fewest cores over', () => {
    expect(placed('best-fit', demand(3), [node(0, 8), node(1, 4), node(2, 4)])).toBe('n1:3')
  })
})

describe('spread', () => {
  test('takes the node with most free cores, and as many nodes as it may', () => {
    const nodes = [node(0, 2), node(1, 5), node(2, 4)]
    expect(placed('spread', demand(2), nodes)).toBe('n1:2')
    expect(placed('spread', demand(6, { nodes: 3 }), nodes)).toBe('n0:2 n2:2 n1:2')
    expect(placed('spread', demand(9, { nodes: 3 }), nodes)).toBe('n0:2 n2:4 n1:3')
  })
})

describe('locality', () => {
  const nodes = [
    ...[node(0, 4), node(1, 8, { switch: 'a' }), node(2, 2, { switch: 'b' })],
    ...[node(3, 3, { switch: 'b' }), node(4, 6, { switch: 'c' }), node(5, 6, { switch: 'c' })],
  ]

  test('takes the host of the client, then a node on the same switch, then any', () => {
    const near = { hostId: 'h2' }
    expect(placed('locality', demand(2, near), nodes)).toBe('n2:2')
    expect(placed('locality', demand(3, near), nodes)).toBe('n3:3')
    expect(placed('locality', demand(4, near), nodes)).toBe('n0:4')
    expect(placed('locality', demand(4, { hostId: 'elsewhere' }), nodes)).toBe('n0:4')
  })

  test('keeps the parts of a lease on one switch', () => {
    expect(placed('locality', demand(5, { hostId: 'h2', nodes: 2 }), nodes)).toBe('n3:3 n2:2')
    expect(placed('locality', demand(12, { nodes: 3 }), nodes)).toBe('n4:6 n5:6')
    expect(placed('locality', demand(14, { nodes: 3 }), nodes)).toBe('n1:8 n4:6')
  })
})

describe('idle-time', () => {
  const nodes = [
    ...[node(0, 8), node(1, 8, { idleUntilMs: 5000 }), node(2, 8, { idleUntilMs: 2000 })],
    ...[node(3, 8, { idleUntilMs: 900 })],
  ]

  test('takes the node that is wanted the soonest after the end of the lease', () => {
    expect(placed('idle-time', demand(2, { untilMs: 1000 }), nodes)).toBe('n2:2')
    expect(placed('idle-time', demand(2, { untilMs: 2001 }), nodes)).toBe('n1:2')
    expect(placed('idle-time', demand(2, { untilMs: 9000 }), nodes)).toBe('n0:2')
  })

  test('takes the one that stays idle for longest if none does until then', () => {
    expect(placed('idle-time', demand(2, { untilMs: 9000 }), nodes.slice(1))).toBe('n1:2')
  })
})

describe('a resource manager', () => {
  test('places as it is told, by what its nodes say of themselves', async () => {
    const { url } = await startManager({ scheduler: 'idle-time' })
    const soon = Date.now() + 3_600_000
    await registeredNode(url, { name: 'short', hostId: 'a', idleUntilMs: Date.now() })
    await registeredNode(url, { name: 'free', hostId: 'b' })
    await registeredNode(url, { name: 'long', hostId: 'c', idleUntilMs: soon, switch: 's1' })
    expect((await grant(url)).part.node).toBe('long')
    expect((await grant(url, { durationMs: 7_200_000 })).part.node).toBe('free')
    expect((await grant(url, { node: 'short' })).part.node).toBe('short')
  })

  test('refuses a policy that does not exist', async () => {
    const scheduler = 'worst-fit' as never
    await expect(startManager({ scheduler })).rejects.toThrow('must be one of first-fit, best-fit')
  })
})
