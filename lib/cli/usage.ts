// `rfaas usage`: what the closed leases used, or what leases had of the harvest jobs.
import { Command, InvalidArgumentError, Option } from 'commander'

import type { Usage } from '../client/client.js'
import type { JobUsage, JobUsageReport } from '../control/report-schemas.js'
import { jsonOption, withTarget, type Target } from './options.js'
import { note, print, printJson, table } from './output.js'

interface Flags extends Target {
  json?: boolean
  jobs?: boolean
  tenant?: string
  since?: Date
  until?: Date
}

export function usageCommand(): Command {
  return withTarget(new Command('usage'))
    .description('show what the leases that are over used, by tenant')
    .addOption(
      new Option('--jobs', 'what leases had of each harvest job instead (operator)').conflicts(
        'tenant',
      ),
    )
    .option('--tenant <name>', 'of this tenant alone (operators see all)')
    .option(
      '--since <time>',
      'of leases that closed, or jobs that ended, then or later: 2026-01-31, 2026-01-31T12:00Z',
      date,
    )
    .option('--until <time>', 'of leases that closed, or jobs that began, before', date)
    .addOption(jsonOption())
    .action(async ({ json = false, jobs = false, tenant, since, until, ...target }: Flags) => {
      const { connect } = await import('./connect.js')
      const client = await connect(target)
      const range = {
        ...(since === undefined ? {} : { since }),
        ...(until === undefined ? {} : { until }),
      }
      if (jobs) {
        const report = await client.jobUsage(range)
        return json ? printJson(report) : printJobs(report)
      }
      const usage = await client.usage({ ...range, ...(tenant === undefined ? {} : { tenant }) })
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

async function printJobs({ jobs, tenants }: JobUsageReport): Promise<void> {
  if (jobs.length === 0) return note('no harvest job is known')
  await print(
    table<JobUsage>(jobs, [
      { title: 'JOB', value: ({ id }) => id },
      { title: 'NODE', value: ({ node }) => node },
      { title: 'PARTITION', value: ({ partition }) => partition },
      { title: 'STATE', value: ({ state }) => state },
      { title: 'BEGIN', value: ({ begin }) => begin },
      { title: 'END', value: ({ end }) => end ?? 'running' },
      { title: 'CORES', value: ({ cores }) => `${cores}`, right: true },
      { title: 'ELAPSED s', value: ({ elapsedMs }) => number(elapsedMs / 1000), right: true },
      { title: 'CORE-SECONDS', value: ({ coreMs }) => number(coreMs / 1000), right: true },
      { title: 'LEASED', value: (job) => number(job.leasedCoreMs / 1000), right: true },
      { title: 'IDLE', value: ({ idleCoreMs }) => number(idleCoreMs / 1000), right: true },
      {
        title: 'LEASED BY',
        value: (job) =>
          job.tenants.map(({ tenant, coreMs }) => `${tenant} ${number(coreMs / 1000)}`).join(', '),
      },
    ]),
  )
  if (tenants.length === 0) return
  await print('\n')
  await print(
    table(tenants, [
      { title: 'TENANT', value: ({ tenant }) => tenant },
      { title: 'CORE-SECONDS', value: ({ coreMs }) => number(coreMs / 1000), right: true },
    ]),
  )
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
