// Every combination of the policies that are to be compared, one run after the other.
import { schedulerNames, type SchedulerName } from '../schedulers/policies.js'
import { simulate, type Conditions, type Policy } from './simulate.js'
import type { Result } from './tally.js'

export interface Choices {
  schedulers: readonly SchedulerName[]
  leasesMs: readonly number[]
  reserves: readonly number[]
  noticesMs: readonly number[]
}

export const defaultChoices: Choices = {
  ...{ schedulers: schedulerNames, leasesMs: [600_000], reserves: [0], noticesMs: [30_000] },
}

export interface Run {
  policy: Policy
  result: Result
}

export function policiesOf({ schedulers, leasesMs, reserves, noticesMs }: Choices): Policy[] {
  return schedulers.flatMap((scheduler) =>
    leasesMs.flatMap((leaseMs) =>
      reserves.flatMap((reserve) =>
        noticesMs.map((noticeMs) => ({ scheduler, leaseMs, reserve, noticeMs })),
      ),
    ),
  )
}

/** `progress` hears now and then which run it is and which share of it is done. */
export async function compare(
  policies: readonly Policy[],
  conditions: Conditions,
  progress: (run: number, share: number) => void,
): Promise<Run[]> {
  const runs: Run[] = []
  for (const [index, policy] of policies.entries()) {
    const result = await simulate(policy, conditions, (share) => progress(index, share))
    runs.push({ policy, result })
  }
  return runs
}
