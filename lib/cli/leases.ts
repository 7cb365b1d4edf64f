// `rfaas leases`: who holds which cores.
import { Command } from 'commander'

import { isLive } from '../control/lease-states.js'
import type { LeaseInfo } from '../control/schemas.js'
import { formatBytes, formatDuration } from '../units.js'
import { jsonOption, withTarget, type Target } from './options.js'
import { note, print, printJson, table } from './output.js'

interface Flags extends Target {
  json?: boolean
  all?: boolean
}

export function leasesCommand(): Command {
  return withTarget(new Command('leases'))
    .description('list the leases that hold cores')
    .option('--all', 'also those that closed a while ago')
    .addOption(jsonOption())
    .action(async ({ json = false, all = false, ...target }: Flags) => {
      const { connect } = await import('./connect.js')
      const known = await (await connect(target)).leases()
      const leases = all ? known : known.filter(({ state }) => state !== 'closed')
      if (json) return printJson(leases)
      if (leases.length === 0) {
        return note(all ? 'no leases' : 'no lease holds cores; --all also lists closed ones')
      }
      const now = Date.now()
      await print(
        table<LeaseInfo>(leases, [
          { title: 'LEASE', value: (lease) => lease.id },
          { title: 'STATE', value: (lease) => lease.state },
          { title: 'NODE', value: ({ parts }) => parts.map(({ node }) => node).join(' ') },
          {
            title: 'CORES',
            value: ({ parts }) => parts.map(({ cores }) => coreList(cores)).join(' '),
          },
          { title: 'MEMORY', value: (lease) => formatBytes(lease.memoryBytes), right: true },
          {
            title: 'AGE',
            value: (lease) => seconds(now - Date.parse(lease.grantedAt)),
            right: true,
          },
          { title: 'ENDS', value: (lease) => ends(lease, now), right: true },
          { title: 'TENANT', value: (lease) => lease.tenant },
        ]),
      )
    })
}

/** `0 1 2 3 8` is `0-3,8`. */
function coreList(cores: readonly number[]): string {
  const ranges: [number, number][] = []
  for (const core of [...cores].sort((a, b) => a - b)) {
    const last = ranges.at(-1)
    if (last !== undefined && last[1] === core - 1) last[1] = core
    else ranges.push([core, core])
  }
  return ranges.map(([first, last]) => (first === last ? `${first}` : `${first}-${last}`)).join(',')
}

function ends(lease: LeaseInfo, now: number): string {
  if (!isLive(lease.state)) return '-'
  return `in ${seconds(Date.parse(lease.expiresAt) - now)}`
}

function seconds(milliseconds: number): string {
  const whole = Math.max(0, Math.round(milliseconds / 1000))
  return whole === 0 ? '0s' : formatDuration(whole * 1000)
}
