// `rfaas simulate`: policies compared on a trace, with the real resource manager under a virtual clock.
import { Command, InvalidArgumentError, Option } from 'commander'

import { invalidArgument } from '../errors.js'
import { formatBytes, formatDuration } from '../units.js'
import { bytes, duration, integer, list, optionOf, withMachine, type Machine } from './options.js'
import { note, print, rows } from './output.js'
import { Progress } from './progress.js'
import { reportFormats, writeReport, type ReportFlags } from './report.js'

interface Flags extends Machine, ReportFlags {
  days: number
  seed: number
  scheduler?: string[]
  lease: number[]
  reserve: number[]
  notice: number[]
  rate: number
  cores: number[]
  memory: number
  spread: number
  work: number
  requests?: string
  call: number
  coldStart: number
  wait: number
  poll: number
  switchSize: number
}

export function simulateCommand(): Command {
  const count = integer(0, 1e9)
  const cores = integer(1, 4096)
  return withMachine(new Command('simulate'))
    .description('compare placement, lease length, reserve and notice on a trace of a cluster')
    .argument('[trace]', 'as for `rfaas utilization report`; without, a made-up one of --nodes')
    .option('--days <count>', 'of the made-up trace', integer(1, 366), 7)
    .option('--seed <number>', 'of all that is random: repeats a run', count, 1)
    .optionsGroup('Policies, every combination of them:')
    .option('--scheduler <names>', 'placement, as in first-fit,spread (default: all)', list(String))
    .addOption(optionOf('--lease <times>', 'lengths, as in 1m,10m', list(duration), '10m'))
    .addOption(optionOf('--reserve <cores>', 'that the batch system keeps idle', list(count), '0'))
    .addOption(optionOf('--notice <times>', 'for leases on a wanted node', list(duration), '30s'))
    .optionsGroup('Who wants leases:')
    .option('--rate <number>', 'tasks per second, arriving at random (Poisson)', rate, 1)
    .addOption(optionOf('--cores <counts>', 'of a task, each as likely', list(cores), '1,2,4,8'))
    .addOption(optionOf('--memory <size>', 'for each core', bytes, '1GiB'))
    .option('--spread <nodes>', 'most nodes that a task may be spread over', integer(1, 1024), 1)
    .addOption(optionOf('--work <time>', 'of a task, exponential, the mean', duration, '5m'))
    .option('--requests <file>', 'CSV instead: seconds,cores,work seconds[,MiB[,nodes]]')
    .addOption(optionOf('--call <time>', 'a task is calls one after the other', duration, '1s'))
    .addOption(optionOf('--cold-start <time>', 'from a grant to a call', duration, '100ms'))
    .addOption(optionOf('--wait <time>', 'of a request for a lease', duration, '1m'))
    .optionsGroup('The cluster:')
    .addOption(optionOf('--poll <time>', 'how often idle nodes are looked for', duration, '5s'))
    .option('--switch-size <nodes>', 'nodes on one switch', integer(1, 65_536), 48)
    .optionsGroup('Options:')
    .addOption(new Option('--format <format>').choices(reportFormats).default('text'))
    .option('--output <file>', 'instead of standard output')
    .action(simulate)
}

async function simulate(path: string | undefined, flags: Flags): Promise<void> {
  const [
    { compare, policiesOf },
    report,
    { schedulerNames },
    { idleCoreMsOf },
    { randomTasks, readTasks },
  ] = await Promise.all([
    import('../../resource-manager/simulation/experiment.js'),
    import('../../resource-manager/simulation/report.js'),
    import('../../resource-manager/schedulers/policies.js'),
    import('../../resource-manager/utilization/analysis.js'),
    import('../../resource-manager/simulation/workload.js'),
  ])
  const schedulers = schedulerNames.filter((name) => flags.scheduler?.includes(name) ?? true)
  const unknown = flags.scheduler?.find((name) => !schedulerNames.some((known) => known === name))
  if (unknown !== undefined) {
    throw invalidArgument('--scheduler', unknown, `one of ${schedulerNames.join(', ')}`)
  }
  const { seed, call, coldStart, lease, rate: perSecond, requests } = flags
  const short = lease.find((ms) => ms < coldStart + call)
  if (call < 1) throw invalidArgument('--call', call, 'at least 1ms')
  if (short !== undefined) {
    throw invalidArgument('--lease', formatDuration(short), 'longer than a cold start and a call')
  }
  const trace = await traceOf(path, flags)
  const idleCoreMs = idleCoreMsOf(trace)
  const { fromMs, untilMs } = trace
  const { textOf } = await import('../../resource-manager/traces/read.js')
  const given = requests === undefined ? undefined : readTasks(textOf(requests), requests, fromMs)
  const random = {
    ...{ seed, perSecond, cores: flags.cores, memoryBytesPerCore: flags.memory },
    ...{ nodes: flags.spread, meanWorkMs: flags.work },
  }
  const conditions = {
    ...{ trace, idleCoreMs },
    tasks: () => given ?? randomTasks(random, fromMs, untilMs),
    ...{ pollMs: flags.poll, coldStartMs: coldStart, callMs: call, waitMs: flags.wait },
    nodesPerSwitch: flags.switchSize,
  }
  const { reserve: reserves, notice: noticesMs } = flags
  const policies = policiesOf({ schedulers, leasesMs: lease, reserves, noticesMs })
  const progress = new Progress()
  const began = performance.now()
  const runs = await compare(policies, conditions, (run, share) => {
    const { scheduler, leaseMs } = policies[run]!
    const what = `${run + 1} of ${policies.length}: ${scheduler}, lease ${formatDuration(leaseMs)}`
    progress.show(what, (run + share) / policies.length)
  })
  progress.end()
  const cores = trace.nodes.reduce((sum, node) => sum + node.cores, 0)
  const tasks =
    requests ??
    `${perSecond} tasks per second of ${flags.cores.join(' or ')} cores with ${formatBytes(flags.memory)} each, ${formatDuration(flags.work)} of work on average`
  const facts = [
    `${trace.source}: ${trace.nodes.length} nodes, ${cores} cores, ${formatDuration(untilMs - fromMs)}; ${Math.round(idleCoreMs / 3_600_000)} core-hours idle.`,
    `${tasks}; calls of ${formatDuration(call)}, a cold start of ${formatDuration(coldStart)}; seed ${seed}.`,
    ...trace.remarks.map((remark) => `Note: ${remark}.`),
  ]
  note(`simulated in ${formatDuration(Math.round((performance.now() - began) / 1000) * 1000)}`)
  await writeReport(flags, print, {
    text: () =>
      [...facts.map((fact) => `${fact}\n`), '\n', rows(report.comparisonRows(runs))].join(''),
    csv: () => report.comparisonCsv(runs),
    json: () => `${JSON.stringify({ facts, runs }, null, 2)}\n`,
    html: () => report.comparisonPage({ facts, runs }),
  })
}

async function traceOf(path: string | undefined, flags: Flags) {
  const { nodes, coresPerNode, nodeMemory: nodeMemoryBytes, days, seed } = flags
  if (path !== undefined) {
    const { readTrace } = await import('../../resource-manager/traces/read.js')
    return readTrace(path, { nodes, coresPerNode, nodeMemoryBytes })
  }
  const { syntheticTrace } = await import('../../resource-manager/traces/synthetic.js')
  return syntheticTrace({
    ...{ seed, days, nodeMemoryBytes, nodes: nodes ?? 1000, coresPerNode: coresPerNode ?? 36 },
  })
}

function rate(text: string): number {
  const value = Number(text)
  if (value > 0 && value <= 100_000) return value
  throw new InvalidArgumentError('It must be a number above 0, at most 100000.')
}
