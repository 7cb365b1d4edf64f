// `rfaas usage`: what the closed leases used.
import { Command, InvalidArgumentError } from 'commander'

import type { Usage } from '../client/client.js'
import { jsonOption, withTarget, type Target } from './options.js'
import { note, print, printJson, table } from './output.js'

interface Flags extends Target {
  json?: boolean
  tenant?: string
  since?: Date
  until?: Date
}

export function usageCommand(): Command {
  return withTarget(new Command('usage'))
    .description('show what the leases that are over used, by tenant')
    .option('--tenant <name>', 'of this tenant alone (operators see all)')
    .option(
      '--since <time>',
      'of leases that closed then or later: 2026-01-31, 2026-01-31T12:00Z',
      date,
    )
    .option('--until <time>', 'of leases that closed before', date)
    .addOption(jsonOption())
    .action(async ({ json = false, tenant, since, until, ...target }: Flags) => {
      const { connect } = await import('./connect.js')
      const client = await connect(target)
      const usage = await client.usage({
        ...(tenant === undefined ? {} : { tenant }),
        ...(since === undefined ? {} : { since }),
        ...(until === undefined ? {} : { until }),
      })
      if (json) return printJson(usage)
      if (usage.length === 0) return note('no lease has ended')
      await print(
        table<Usage>(usage, [
          { title: 'TENANT', value: (row) => row.tenant },
          { title: 'LEASES', value: (row) => String(row.leases), right: true },
          { title: 'CORE-SECONDS', value: (row) => number(row.coreMs / 1000), right: true },
          {
            title: 'GiB-SECONDS',
            value: (row) => number(row.memoryByteMs / 1000 / 2 ** 30),
            right: true,
          },
          { title: 'HELD s', value: (row) => number(row.heldMs / 1000), right: true },
          { title: 'CPU s', value: (row) => number(row.cpuMs / 1000), right: true },
        ]),
      )
    })
}

/** A day alone begins at midnight UTC, as Date has it. */
function date(text: string): Date {
  const time = new Date(text)
  if (/^\d{4}-\d\d-\d\d/.test(text) && !Number.isNaN(time.getTime())) return time
  throw new InvalidArgumentError(
    'It must be a date or a time, such as 2026-01-31 or 2026-01-31T12:00Z.',
  )
}

function number(value: number): string {
  return value.toLocaleString('en-US', { maximumFractionDigits: 3 })
}
