// The states of a lease: one table. The resource manager lives by it, docs/leases.md shows it, and the
// model-based test holds the one against the other.
import type { LeaseState } from './schemas.js'

/** `activate`: the node runs an executor. `revoke`: the operator wants it back. `finish`: the notice
 * is over. `lose`: the node has no room for it any more. `close`: the node confirms that nothing of
 * it runs, or the operator has removed the node. */
export type LeaseEvent =
  'activate' | 'renew' | 'release' | 'expire' | 'revoke' | 'finish' | 'lose' | 'close'

interface Rule {
  meaning: string
  /** `live`: its token is good. `over`: its token is not, its cores are still held. `closed`: free. */
  phase: 'live' | 'over' | 'closed'
  /** What may happen, and where it leads. What is not here is refused. */
  on: Partial<Record<LeaseEvent, LeaseState>>
}

const over = (state: LeaseState): Rule['on'] => ({
  // To end once more changes nothing.
  release: state,
  revoke: state,
  close: 'closed',
})

const rules: Record<LeaseState, Rule> = {
  granted: {
    meaning: 'the client may use it; no executor runs yet',
    phase: 'live',
    on: {
      activate: 'active',
      renew: 'granted',
      release: 'released',
      expire: 'expired',
      revoke: 'revoking',
      lose: 'lost',
      close: 'closed',
    },
  },
  active: {
    meaning: 'its node runs an executor for it',
    phase: 'live',
    on: {
      activate: 'active',
      renew: 'active',
      release: 'released',
      expire: 'expired',
      revoke: 'revoking',
      lose: 'lost',
      close: 'closed',
    },
  },
  revoking: {
    meaning: 'notice was given: running calls may finish, new ones are refused',
    phase: 'live',
    on: {
      // The report of an executor that started before the node had heard.
      activate: 'revoking',
      release: 'released',
      expire: 'expired',
      revoke: 'revoking',
      finish: 'revoked',
      lose: 'lost',
      close: 'closed',
    },
  },
  released: { meaning: 'the client gave it back', phase: 'over', on: over('released') },
  expired: { meaning: 'its time is up', phase: 'over', on: over('expired') },
  revoked: { meaning: 'the notice is over', phase: 'over', on: over('revoked') },
  lost: {
    meaning: 'its node came back without room for it',
    phase: 'over',
    on: over('lost'),
  },
  closed: {
    meaning: 'its node has confirmed the end, or was removed',
    phase: 'closed',
    on: { release: 'closed', revoke: 'closed', close: 'closed' },
  },
}

export const leaseStates = Object.keys(rules) as LeaseState[]
export const leaseEvents: readonly LeaseEvent[] = [
  'activate',
  'renew',
  'release',
  'expire',
  'revoke',
  'finish',
  'lose',
  'close',
]

/** Undefined when the event is refused in this state. */
export function nextState(state: LeaseState, event: LeaseEvent): LeaseState | undefined {
  return rules[state].on[event]
}

export type LiveState = 'granted' | 'active' | 'revoking'
export type OverState = 'released' | 'expired' | 'revoked' | 'lost'

/** Its token is good. */
export function isLive(state: LeaseState): state is LiveState {
  return rules[state].phase === 'live'
}

/** Ended, but the node has not confirmed: its cores are still held. */
export function isOver(state: LeaseState): state is OverState {
  return rules[state].phase === 'over'
}

/** The state of a lease with these parts: that of the part which has most of its life left. */
export function stateOfParts(parts: readonly LeaseState[]): LeaseState {
  const byLife: readonly LeaseState[] = ['active', ...leaseStates]
  return byLife.find((state) => parts.includes(state)) ?? 'closed'
}

/** The table as Markdown. */
export function renderLeaseStates(): string {
  const cores = { live: 'held', over: 'held until its node confirms', closed: 'free' }
  const lines = [
    ['state', 'meaning', 'its cores are', ...leaseEvents],
    ...leaseStates.map((state) => {
      const { meaning, phase, on } = rules[state]
      return [`\`${state}\``, meaning, cores[phase], ...leaseEvents.map((event) => on[event] ?? '')]
    }),
  ]
  const widths = lines[0]!.map((_, column) =>
    Math.max(...lines.map((line) => line[column]!.length)),
  )
  const row = (cells: readonly string[]): string =>
    `| ${cells.map((cell, column) => cell.padEnd(widths[column]!)).join(' | ')} |`
  const rule = row(widths.map((width) => '-'.repeat(width)))
  const [head, ...body] = lines.map(row)
  return [head, rule, ...body].map((line) => `${line}\n`).join('')
}
