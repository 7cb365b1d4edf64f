// A real Slurm of this machine: slurmctld and a slurmd for each node, in a folder and on ports of their
// own. Nodes are virtual: all on this host, each with some cores of it.
import { execFile, type ChildProcess } from 'node:child_process'
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { hostname, tmpdir, userInfo } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'

import { commandLine, naming } from '../faults/proc.js'
import { freePorts } from '../free-ports.js'
import { controlGroups, removeGroupsOf } from './control-groups.js'
import { endDaemon, startDaemon } from './daemons.js'
import { Munge } from './munge.js'

const commandTimeoutMs = 20_000
const endWithinMs = 10_000

/** Why there can be none on this host. */
export const lackOfSlurm = ['slurmctld', 'slurmd', 'munged'].every((name) =>
  existsSync(`/usr/sbin/${name}`),
)
  ? undefined
  : 'needs the Debian packages slurmctld, slurmd, slurm-client and munge'

export interface BatchNodeOptions {
  name: string
  cores: number
  memoryMiB: number
}

export interface BatchClusterOptions {
  /** Between Slurm's notice to a harvest job and its end. Default 60. */
  graceSeconds?: number
  /** Of slurm.conf. */
  lines?: string
  /** Of its files. Default: one of its own. */
  folder?: string
  /** The one of its accounting. Default: one of its own. */
  munge?: Munge
  /** Jobs are held to their memory and cores by control groups. They are the host's, and called like the
   * nodes: no other cluster may have nodes of these names. Default: jobs are bound to their cores only. */
  constrained?: boolean
}

export interface BatchJob {
  job_id: number
  job_state: string
  name: string
  user_name: string
  partition: string
  nodes: string
  cpus: number
  start_time: number
  end_time: number
  preempt_time: number
}

export class BatchCluster {
  readonly folder: string
  readonly #daemons = new Map<string, ChildProcess>()
  /** Its own. */
  #munge: Munge | undefined
  /** Nodes with control groups. */
  #constrained: string[] = []

  private constructor(folder: string) {
    this.folder = folder
  }

  /** Resolves when all nodes are idle. */
  static async start(
    nodes: readonly BatchNodeOptions[],
    options: BatchClusterOptions = {},
  ): Promise<BatchCluster> {
    const { graceSeconds = 60, lines = '', munge, constrained = false } = options
    const folder = options.folder ?? mkdtempSync(join(tmpdir(), 'rfaas-slurm-'))
    const cluster = new BatchCluster(folder)
    try {
      for (const name of ['state', 'spool', 'run', 'log'])
        mkdirSync(join(folder, name), { recursive: true })
      // Whoever asks Slurm reads its configuration.
      chmodSync(folder, 0o755)
      if (munge === undefined) cluster.#munge = await Munge.start(join(folder, 'munge'))
      const authentication = (munge ?? cluster.#munge)!.lines
      const text = await configuration(cluster.folder, nodes, graceSeconds)
      const bounds = constrained ? controlGroups : bound
      writeFileSync(cluster.configuration, text + bounds.slurm + authentication + lines)
      writeFileSync(join(cluster.folder, 'cgroup.conf'), bounds.cgroup)
      if (constrained) cluster.#constrained = nodes.map(({ name }) => name)
      cluster.startController()
      for (const { name } of nodes) cluster.startNode(name)
      await cluster.eventually('every node is idle', async () => {
        const states = (await cluster.run('sinfo', ['-hN', '-p', 'batch', '-o', '%T'])).split('\n')
        return states.filter((state) => state === 'idle').length === nodes.length
      })
      return cluster
    } catch (error) {
      await cluster.stop()
      throw error
    }
  }

  get configuration(): string {
    return join(this.folder, 'slurm.conf')
  }

  /** What whoever talks to it needs in its environment. */
  get env(): Record<string, string> {
    return { SLURM_CONF: this.configuration }
  }

  startController(): void {
    this.#start('slurmctld', 'slurmctld', [])
  }

  /** The controller writes what it knows a while later; what a crash finds unwritten is forgotten. */
  async saved(): Promise<void> {
    const path = join(this.folder, 'state/job_state')
    const beforeMs = Date.now()
    for (const { job_id } of await this.jobs()) {
      await this.run('scontrol', ['update', `JobId=${job_id}`, 'AdminComment=saved'])
    }
    await this.eventually('the controller has saved its jobs', () =>
      Promise.resolve(statSync(path).mtimeMs > beforeMs),
    )
  }

  startNode(name: string): void {
    this.#start(name, 'slurmd', ['-N', name])
  }

  /** As a crash does. */
  async killController(): Promise<void> {
    await this.#end('slurmctld', 'SIGKILL')
  }

  /** Its slurmd: processes of its jobs live on. */
  async killNode(name: string): Promise<void> {
    await this.#end(name, 'SIGKILL')
  }

  /** What a command of Slurm prints. */
  async run(program: string, args: readonly string[]): Promise<string> {
    const { stdout } = await promisify(execFile)(program, args, {
      env: { ...process.env, ...this.env },
      timeout: commandTimeoutMs,
      killSignal: 'SIGKILL',
    })
    return stdout.trim()
  }

  /** A regular job, which preempts; its number. */
  async submit(
    script: string,
    { cores = 1, memoryMiB = 128, node = '', held = false, name = 'regular', comment = '' } = {},
  ): Promise<number> {
    const args = ['--parsable', '-p', 'batch', `-c${cores}`, `--mem=${memoryMiB}M`, '-t', '10']
    if (node !== '') args.push('-w', node)
    if (held) args.push('--hold')
    args.push(`--job-name=${name}`, `--comment=${comment}`)
    const output = `--output=${join(this.folder, 'log/job-%j.out')}`
    return Number(await this.run('sbatch', [...args, output, `--wrap=${script}`]))
  }

  output(job: number): string {
    return readFileSync(join(this.folder, `log/job-${job}.out`), 'utf8')
  }

  async jobs(): Promise<BatchJob[]> {
    return (JSON.parse(await this.run('squeue', ['--json'])) as { jobs: BatchJob[] }).jobs
  }

  async job(id: number): Promise<BatchJob> {
    const job = (await this.jobs()).find(({ job_id }) => job_id === id)
    if (job === undefined) throw new Error(`Slurm has no job ${id}`)
    return job
  }

  /** Those of the resource manager, the first one first. */
  async harvestJobs(state?: string): Promise<BatchJob[]> {
    const ours = (await this.jobs()).filter(({ name }) => name === 'rfaas-harvest')
    return ours.filter(({ job_state }) => state === undefined || job_state === state)
  }

  /** The logs of its daemons and of the harvest jobs, the ends of them. */
  get logs(): string {
    const folder = join(this.folder, 'log')
    return readdirSync(folder)
      .map((name) => `── ${name}\n${readFileSync(join(folder, name), 'utf8').slice(-3000)}`)
      .join('\n')
  }

  /** Processes of its jobs whose command line contains `text`: nobody else has this configuration in
   * their environment. */
  processes(text = ''): number[] {
    const all = naming(`SLURM_CONF=${this.configuration}\0`)
    return all.filter((pid) => commandLine(pid).includes(text))
  }

  async eventually(what: string, condition: () => Promise<boolean>): Promise<void> {
    const giveUp = performance.now() + 30_000
    while (!(await condition().catch(() => false))) {
      if (performance.now() > giveUp) throw new Error(`not within 30 s: ${what}\n${this.logs}`)
      await sleep(50)
    }
  }

  /** Ends jobs, then daemons; whatever is left of either is killed. Idempotent. */
  async stop(): Promise<void> {
    // Without it each command of Slurm would wait for it.
    if (this.#daemons.get('slurmctld')?.exitCode === null) {
      for (const partition of ['batch', 'faas']) {
        await this.run('scancel', ['-p', partition]).catch(() => undefined)
      }
      // Processes of jobs outlive slurmd.
      const gone = async (): Promise<boolean> => (await this.run('squeue', ['-h'])) === ''
      const giveUp = performance.now() + endWithinMs
      while (performance.now() < giveUp && !(await gone().catch(() => true))) await sleep(50)
    }
    const names = [...this.#daemons.keys()].reverse()
    await Promise.all(names.map((name) => this.#end(name, 'SIGTERM')))
    for (const pid of this.processes()) process.kill(pid, 'SIGKILL')
    await this.#munge?.stop()
    for (const node of this.#constrained) removeGroupsOf(node)
    rmSync(this.folder, { recursive: true, force: true })
  }

  #start(name: string, program: string, args: readonly string[]): void {
    const all = ['-D', '-f', this.configuration, ...args]
    this.#daemons.set(name, startDaemon(program, all, { env: this.env }))
  }

  async #end(name: string, signal: NodeJS.Signals): Promise<void> {
    const child = this.#daemons.get(name)
    this.#daemons.delete(name)
    if (child !== undefined) await endDaemon(child, signal)
  }
}

/** slurmd starts whatever is mounted on /sys/fs/cgroup. */
const bound = {
  slurm: 'ProctrackType=proctrack/linuxproc\nTaskPlugin=task/affinity\n',
  cgroup: 'CgroupPlugin=cgroup/v1\n',
}

async function configuration(
  folder: string,
  nodes: readonly BatchNodeOptions[],
  graceSeconds: number,
): Promise<string> {
  const { username } = userInfo()
  const host = hostname().split('.')[0]
  const [controllerPort, ...ports] = await freePorts(nodes.length + 1)
  const names = nodes.map(({ name }) => name).join(',')
  return `ClusterName=rfaas
SlurmctldHost=${host}(127.0.0.1)
SlurmctldPort=${controllerPort}
SlurmUser=${username}
SlurmdUser=${username}
CredType=cred/munge
StateSaveLocation=${folder}/state
SlurmdSpoolDir=${folder}/spool/%n
SlurmctldPidFile=${folder}/run/slurmctld.pid
SlurmdPidFile=${folder}/run/slurmd-%n.pid
SlurmctldLogFile=${folder}/log/slurmctld.log
SlurmdLogFile=${folder}/log/slurmd-%n.log
MailProg=/bin/true
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,sched_min_interval=0,bf_interval=1,batch_sched_delay=0
PriorityType=priority/basic
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
SlurmdParameters=config_overrides
ReturnToService=2
SlurmctldTimeout=10
SlurmdTimeout=10
KillWait=2
Waittime=0
MinJobAge=300
DefMemPerCPU=128
${nodes
  .map(
    ({ name, cores, memoryMiB }, index) =>
      `NodeName=${name} NodeHostName=${host} NodeAddr=127.0.0.1 Port=${ports[index]} CPUs=${cores} ` +
      `Boards=1 SocketsPerBoard=1 CoresPerSocket=${cores} ThreadsPerCore=1 RealMemory=${memoryMiB} ` +
      `Feature=virtual State=UNKNOWN`,
  )
  .join('\n')}
PartitionName=batch Nodes=${names} Default=YES MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
PartitionName=faas Nodes=${names} Default=NO MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=CANCEL GraceTime=${graceSeconds}
`
}
