// `rfaas harvest`: what the batch system runs and leaves idle, and what is harvested.
import { Command } from 'commander'

import type { HarvestNode } from '../control/report-schemas.js'
import { formatBytes } from '../units.js'
import { jsonOption, withTarget, type Target } from './options.js'
import { note, print, printable, printJson, table } from './output.js'

export function harvestCommand(): Command {
  return withTarget(new Command('harvest'))
    .description('show what the batch system runs, leaves idle, and what is harvested (operator)')
    .addOption(jsonOption())
    .action(async ({ json = false, ...target }: Target & { json?: boolean }) => {
      const { connect } = await import('./connect.js')
      const info = await (await connect(target)).harvest()
      if (json) return printJson(info)
      if (info.source === 'static') {
        return note(
          "nodes register by themselves; 'rfaas resource-manager --source slurm' harvests",
        )
      }
      const { state, reason, seenAt = 'never', nodes, jobs, warnings } = info
      await print(
        table<HarvestNode>(nodes, [
          { title: 'BATCH NODE', value: ({ name }) => name },
          { title: 'STATE', value: (node) => node.state },
          { title: 'CORES', value: ({ cores }) => `${cores}`, right: true },
          { title: 'BATCH', value: ({ batchCores }) => `${batchCores}`, right: true },
          { title: 'HARVESTED', value: ({ harvestedCores }) => `${harvestedCores}`, right: true },
          { title: 'IDLE', value: ({ idleCores }) => `${idleCores}`, right: true },
          {
            title: 'FREE MEMORY',
            value: ({ memoryBytes, allocatedMemoryBytes }) =>
              formatBytes(Math.max(0, memoryBytes - allocatedMemoryBytes)),
            right: true,
          },
          {
            title: 'JOBS',
            value: ({ name }) =>
              jobs
                .filter(({ node }) => node === name || node.startsWith(`${name}_`))
                .map((job) => `${job.id} ${job.state}`)
                .join(', '),
          },
        ]),
      )
      for (const warning of warnings) note(printable(warning))
      if (state === 'failing') {
        note(printable(`Slurm fails since its answer of ${seenAt}: ${reason ?? ''}`))
      }
    })
}
