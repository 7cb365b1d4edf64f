import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import {
  isLive,
  isOver,
  leaseEvents,
  leaseStates,
  nextState,
  renderLeaseStates,
  stateOfParts,
} from '../../lib/control/lease-states.js'
import { packageRoot } from '../../lib/package-root.js'

describe('the states of a lease', () => {
  it('are documented by the table that the code uses', () => {
    const page = readFileSync(join(packageRoot(), 'docs', 'leases.md'), 'utf8')
    expect(page).toContain(`\n${renderLeaseStates()}\n`)
  })

  it('lead to the end: nothing that is over lives again, and closed is for ever', () => {
    for (const state of leaseStates) {
      for (const event of leaseEvents) {
        const next = nextState(state, event)
        if (next === undefined) continue
        if (isOver(state)) expect(isLive(next)).toBe(false)
        if (state === 'closed') expect(next).toBe('closed')
        if (event === 'close') expect(next).toBe('closed')
      }
    }
  })

  it('of several parts are that of the part with most of its life left', () => {
    expect(stateOfParts(['lost', 'active'])).toBe('active')
    expect(stateOfParts(['granted', 'active'])).toBe('active')
    expect(stateOfParts(['closed', 'revoking'])).toBe('revoking')
    expect(stateOfParts(['closed', 'released'])).toBe('released')
    expect(stateOfParts(['closed', 'closed'])).toBe('closed')
  })
})
