// What Slurm says and can be asked for, over its own commands: `sinfo --json` and `squeue --json` of
// Slurm 22.05, `sbatch`, `scancel`. Their answers come from another system: they are checked whole,
// and one that makes no sense counts as no answer.
import { Type, type Static } from 'typebox'
import { check } from '../../../lib/control/check.js'
import { RfaasError } from '../../../lib/errors.js'
import { run, runJson, type RunOptions } from './program.js'

const text = Type.String({ maxLength: 65_536 })
const count = Type.Integer({ minimum: 0, maximum: 65_535 })
const mebibytes = Type.Integer({ minimum: 0, maximum: 2 ** 40 })
/** Unix time in seconds, to the end of the year 9999. */
const time = Type.Integer({ minimum: 0, maximum: 253_402_300_799 })

const SlurmNode = Type.Object({
  /** Short enough for the nodes that are made of it. */
  name: Type.String({ pattern: '^[A-Za-z0-9][A-Za-z0-9._-]{0,58}$' }),
  /** Where its slurmd is reached: the executor manager listens there. */
  address: Type.String({ pattern: '^[A-Za-z0-9][A-Za-z0-9.:_-]{0,253}$' }),
  state: text,
  state_flags: Type.Array(text, { maxItems: 64 }),
  cpus: count,
  alloc_cpus: count,
  real_memory: mebibytes,
  alloc_memory: mebibytes,
  partitions: Type.Array(text, { maxItems: 4096 }),
  active_features: text,
})
export type SlurmNode = Static<typeof SlurmNode>

const SlurmJob = Type.Object({
  job_id: Type.Integer({ minimum: 1, maximum: 2 ** 32 - 1 }),
  job_state: Type.String({ maxLength: 64 }),
  state_reason: text,
  partition: text,
  name: text,
  comment: Type.Union([text, Type.Null()]),
  user_name: Type.Union([text, Type.Null()]),
  /** The nodes that it has, in Slurm's notation. */
  nodes: text,
  /** Those that it asked for by name. */
  required_nodes: text,
  node_count: Type.Integer({ minimum: 0 }),
  /** Null when it was cancelled before it started. */
  cpus: Type.Union([Type.Integer({ minimum: 0 }), Type.Null()]),
  memory_per_node: Type.Union([Type.Integer({ minimum: 0 }), Type.Null()]),
  /** Of a job that waits, when Slurm plans to start it; 0: not yet. */
  start_time: time,
  end_time: time,
  /** When it was told that it has to go; 0: it was not. */
  preempt_time: time,
})
export type SlurmJob = Static<typeof SlurmJob>

/** Without a controller, sinfo and squeue say so here, list nothing and end with exit code 0. */
const Failures = Type.Object({
  errors: Type.Array(
    Type.Object({ description: Type.Optional(text), error: Type.Optional(text) }),
    { maxItems: 1000 },
  ),
})
const NodesAnswer = Type.Object({ nodes: Type.Array(SlurmNode, { maxItems: 100_000 }) })
const JobsAnswer = Type.Object({ jobs: Type.Array(SlurmJob, { maxItems: 1_000_000 }) })

export interface Submission {
  partition: string
  account: string | undefined
  qos: string | undefined
  name: string
  /** Tells whose job it is, and which node it becomes. */
  comment: string
  node: string
  cores: number
  memoryMiB: number
  timeLimitMs: number | undefined
  /** How long before the end of its time it is told. */
  signalSeconds: number
  log: string
  script: string
}

export class BatchSystem {
  readonly #options: RunOptions

  constructor(options: RunOptions) {
    this.#options = options
  }

  async nodes(): Promise<SlurmNode[]> {
    const answer = check(NodesAnswer, await this.#json('sinfo'), 'the answer of sinfo')
    const names = new Set<string>()
    for (const { name } of answer.nodes) {
      if (names.has(name)) throw nonsense('sinfo', `node ${name} is there twice`)
      names.add(name)
    }
    return answer.nodes
  }

  /** Those that wait and run, and those that ended a while ago (Slurm's MinJobAge). */
  async jobs(): Promise<SlurmJob[]> {
    return check(JobsAnswer, await this.#json('squeue'), 'the answer of squeue').jobs
  }

  /** The number of the job. */
  async submit(job: Submission): Promise<number> {
    const { account, qos, timeLimitMs } = job
    const answer = await run(
      'sbatch',
      [
        '--parsable',
        `--partition=${job.partition}`,
        ...(account === undefined ? [] : [`--account=${account}`]),
        ...(qos === undefined ? [] : [`--qos=${qos}`]),
        `--job-name=${job.name}`,
        `--comment=${job.comment}`,
        '--nodes=1',
        '--ntasks=1',
        `--nodelist=${job.node}`,
        `--cpus-per-task=${job.cores}`,
        `--mem=${job.memoryMiB}M`,
        ...(timeLimitMs === undefined ? [] : [`--time=${Math.ceil(timeLimitMs / 60_000)}`]),
        // To the executor manager, which is the batch shell's successor: at once when the job is
        // preempted (preempt_send_user_signal), and so long before its time is up.
        `--signal=B:TERM@${job.signalSeconds}`,
        // What is idle then is another matter, to be decided anew.
        '--no-requeue',
        '--open-mode=append',
        `--output=${job.log}`,
        '--export=NIL',
        '--chdir=/',
        `--wrap=${job.script}`,
      ],
      this.#options,
    )
    const id = Number(/^(\d{1,10})(;\S*)?\s*$/.exec(answer)?.[1])
    if (Number.isSafeInteger(id) && id > 0) return id
    throw nonsense('sbatch', `it printed "${answer.slice(0, 60)}" instead of the job's number`)
  }

  /** The job's executor manager is told to end, with notice for its leases. */
  async end(id: number): Promise<void> {
    await run('scancel', ['--batch', '--signal=TERM', `${id}`], this.#options)
  }

  /** A job that has not started. */
  async withdraw(id: number): Promise<void> {
    await run('scancel', ['--state=PENDING', `${id}`], this.#options)
  }

  /** Fields of `scontrol show KIND [NAME]` by their names. */
  async show(kind: 'config' | 'partition', name?: string): Promise<ReadonlyMap<string, string>> {
    const args = ['--oneliner', 'show', kind, ...(name === undefined ? [] : [name])]
    const answer = await run('scontrol', args, this.#options)
    const fields = answer.matchAll(/(?:^|\s)([A-Za-z]\w{0,63}) *= *([^\s]*)/g)
    return new Map(Array.from(fields, ([, field = '', value = '']) => [field, value]))
  }

  async #json(program: 'sinfo' | 'squeue'): Promise<unknown> {
    const answer = await runJson(program, ['--json'], this.#options)
    const [error] = check(Failures, answer, `the answer of ${program}`).errors
    if (error === undefined) return answer
    const why = error.description ?? error.error ?? 'an error without a name'
    throw new RfaasError(
      'ERR_RFAAS_UNAVAILABLE',
      `${program} says: ${why.slice(0, 500)} (does slurmctld answer, and does PrivateData hide nothing from this user?)`,
    )
  }
}

function nonsense(program: string, what: string): RfaasError {
  return new RfaasError('ERR_RFAAS_PROTOCOL', `the answer of ${program} makes no sense: ${what}`)
}
