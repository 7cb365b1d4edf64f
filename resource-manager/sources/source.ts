// The seam between the resource manager and what its nodes come from. `static`: executor managers are
// started by whoever runs the machines, and register by themselves; there is nothing to do. Any other
// source starts executor managers where something is idle. They register like all others, and the
// manager treats them alike: a source may fail, hang or be wrong, and no lease ends because of it.
import type { HarvestInfo } from '../../lib/control/report-schemas.js'
import type { NodeInfo } from '../../lib/control/schemas.js'
import type { JobRecord } from '../stores/store.js'

export const sourceNames = ['static', 'slurm'] as const
export type SourceName = (typeof sourceNames)[number]

export interface NodeSource {
  /** What it sees and does. */
  readonly info: HarvestInfo
  /** What its operator has to look after, told to everybody who asks whether the manager is well:
   * `info.warnings` says more. */
  readonly warnings: readonly string[]
  /** What it has started goes on: the next one finds it again. Idempotent. */
  close(): Promise<void>
}

/** What the batch system says of a job that is or was a node, and has or had cores. */
export type SeenJob = Omit<JobRecord, 'seenMs'>

/** What a source may know of the manager's nodes, and do to them. */
export interface ManagedNodes {
  list(): NodeInfo[]
  /** When somebody else is expected to want the node, Unix time; undefined: nobody is. */
  expect(name: string, idleUntilMs: number | undefined): void
  /** Whether nothing may be granted on the node, until it is said otherwise or another batch job registers
   * under that name. */
  withhold(name: string, withheld: boolean): void
  /** Its leases end, with this notice. */
  takeBack(name: string, noticeMs: number): Promise<void>
  /** Nothing of a node that is not up runs any more, nor ever will: its leases are closed as lost. */
  remove(name: string): Promise<void>
  /** All jobs that the batch system told of when it was asked `agoMs` ago: for the accounts. */
  account(jobs: readonly SeenJob[], agoMs: number): Promise<void>
}
