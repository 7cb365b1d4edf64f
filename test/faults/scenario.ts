// What a row of the failure matrix is. docs/failures.md shows the first three fields of each, the
// runner (run.ts) provokes the fault and shows what was seen.
import { existsSync } from 'node:fs'

import { lackOfEtcd } from '../resource-manager/etcd-cluster.js'
import { lackOfSlurm } from '../slurm/batch-cluster.js'
import type { Stage } from './stage.js'
import { lackOfWire } from './wire.js'

export interface Scenario {
  /** For the command line. */
  name: string
  fault: string
  /** The outcome for the caller, in one sentence. */
  promise: string
  /** What the host must have; without it the row is skipped, and says why. */
  needs?: Need
  /** A namespace of its own for the scenario's process and all that it starts: needs root. */
  unshare?: 'net' | 'mount'
  /** A recovery that takes longer breaks the promise. */
  recoversWithinMs?: number
  /** For all of it, the start of the cluster included. Default 120 s. */
  withinMs?: number
  /** Provokes the fault; an exception breaks the promise. */
  run(stage: Stage): Promise<Seen>
}

export interface Seen {
  /** A few words. */
  seen: string
  /** From the fault, or its end where only its end can be recovered from. */
  recoveredMs?: number
}

export type Need = 'faketime' | 'cgroups' | 'wire' | 'etcd' | 'slurm'

export const libfaketime = [
  '/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1',
  '/usr/lib/aarch64-linux-gnu/faketime/libfaketime.so.1',
].find((path) => existsSync(path))

/** Why this host cannot run a scenario; undefined if it can. */
export function lacking({ needs, unshare }: Scenario): string | undefined {
  if (unshare !== undefined && process.getuid?.() !== 0)
    return `needs root, for a ${unshare} namespace`
  switch (needs) {
    case 'faketime':
      return libfaketime === undefined ? 'needs the Debian package faketime' : undefined
    case 'cgroups':
      return process.getuid?.() === 0 ? undefined : 'needs root, for limits of memory'
    case 'wire':
      return lackOfWire
    case 'etcd':
      return lackOfEtcd
    case 'slurm':
      return lackOfSlurm
    case undefined:
      return undefined
  }
}
