// `rfaas utilization`: what a batch system leaves idle, recorded and reported.
import { Command, Option } from 'commander'

import { duration, integer, list, optionOf, withMachine, type Machine } from './options.js'
import { note, print, rows } from './output.js'
import { reportFormats, writeReport, type ReportFlags } from './report.js'
import { stopRequested } from './signals.js'

export function utilizationCommand(): Command {
  return new Command('utilization')
    .description('record what a batch system leaves idle, and report what leases would use of it')
    .addCommand(recordCommand())
    .addCommand(reportCommand())
    .addHelpText(
      'after',
      `
Examples:
  rfaas utilization record idle.samples               until Ctrl-C
  rfaas utilization report idle.samples
  rfaas utilization report cluster.swf.gz --format html --output cluster.html`,
    )
}

interface RecordFlags {
  every: number
  samples?: number
}

function recordCommand(): Command {
  return new Command('record')
    .description('ask Slurm (sinfo, squeue) at an interval, and append what is idle to a file')
    .argument('<file>', 'of samples; it is made if there is none')
    .addOption(optionOf('--every <time>', 'between two samples', duration, '2m'))
    .option('--samples <count>', 'how many to take (default: until Ctrl-C)', integer(1, 1e9))
    .action(async (path: string, { every, samples }: RecordFlags) => {
      const stop = new AbortController()
      void stopRequested().then(() => stop.abort())
      const [{ record }, { BatchSystem }] = await Promise.all([
        import('../../resource-manager/utilization/recorder.js'),
        import('../../resource-manager/sources/slurm/batch-system.js'),
      ])
      const { signal } = stop
      const batch = new BatchSystem({ timeoutMs: Math.min(every, 30_000), signal })
      const say = (text: string): void => note(`${new Date().toISOString()}  ${text}`)
      await record({ path, batch, everyMs: every, samples, signal, onSample: say, onRemark: say })
    })
}

interface Flags extends Machine, ReportFlags {
  leases: number[]
  delay: number
}

const lengths = '10s,30s,1m,2m,5m,10m,20m,1h,2h,8h'

function reportCommand(): Command {
  return withMachine(new Command('report'))
    .description('say what was idle, for how long, and what leases would have used')
    .argument('<trace>', 'samples, a table of sacct or squeue, or Standard Workload Format')
    .addOption(optionOf('--leases <times>', 'their lengths', list(duration), lengths))
    .addOption(optionOf('--delay <time>', 'until a lease begins on what is idle', duration, '0s'))
    .addOption(new Option('--format <format>').choices(reportFormats).default('text'))
    .option('--output <file>', 'instead of standard output')
    .action(
      async (path: string, { leases, delay, nodes, coresPerNode, nodeMemory, ...to }: Flags) => {
        const [{ readTrace }, { analyze }, page, text] = await Promise.all([
          import('../../resource-manager/traces/read.js'),
          import('../../resource-manager/utilization/analysis.js'),
          import('../../resource-manager/utilization/page.js'),
          import('../../resource-manager/utilization/text.js'),
        ])
        const trace = readTrace(path, { nodes, coresPerNode, nodeMemoryBytes: nodeMemory })
        const analysis = analyze(trace, { leasesMs: leases, delayMs: delay, points: 480 })
        await writeReport(to, print, {
          text: () => text.utilizationText(analysis, rows),
          csv: () => text.utilizationCsv(analysis),
          json: () => `${JSON.stringify(analysis, null, 2)}\n`,
          html: () => page.utilizationPage(analysis),
        })
      },
    )
}
