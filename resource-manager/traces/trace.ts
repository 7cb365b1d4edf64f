// What a batch system left idle, over time: the one form that every record of a cluster is brought into.
import { RfaasError } from '../../lib/errors.js'

export interface TraceNode {
  name: string
  cores: number
  /** 0: not known. */
  memoryBytes: number
}

/** What is idle on a node from now on. */
export interface Change {
  atMs: number
  /** Index of the node. */
  node: number
  idleCores: number
  idleMemoryBytes: number
  /** When the next job starts on the node, if the batch system knows that job by now. */
  nextStartMs: number | undefined
}

export interface Trace {
  /** Where it comes from, for people. */
  source: string
  nodes: readonly TraceNode[]
  fromMs: number
  untilMs: number
  /** Times of which nothing is known: within them every node has nothing idle. */
  gaps: readonly { fromMs: number; untilMs: number }[]
  /** In order of time, from the beginning at every call. Before its first change a node has nothing idle. */
  changes(): Iterable<Change>
  /** What was left out or assumed, for people. */
  remarks: readonly string[]
}

/** What a record may not say of the cluster. */
export interface MachineOptions {
  /** Default: what the record says. */
  nodes?: number | undefined
  coresPerNode?: number | undefined
  /** 0: not known. */
  nodeMemoryBytes: number
}

/** The file, the line in it, and what is wrong with it. */
export function badTrace(source: string, line: number, message: string): RfaasError {
  return new RfaasError('ERR_RFAAS_INVALID_ARGUMENT', `${source}, line ${line}: ${message}`)
}

export function unusableTrace(source: string, message: string): RfaasError {
  return new RfaasError('ERR_RFAAS_INVALID_ARGUMENT', `${source}: ${message}`)
}
