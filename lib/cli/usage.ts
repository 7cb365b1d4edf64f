// `rfaas usage`: what the closed leases used.
import { Command } from 'commander'

import { jsonOption, urlOption } from './options.js'
import { print, printJson } from './output.js'

export function usageCommand(): Command {
  return new Command('usage')
    .description('show what all leases that are over used')
    .addOption(urlOption())
    .addOption(jsonOption())
    .action(async ({ url, json = false }: { url: string; json?: boolean }) => {
      const { connect } = await import('./connect.js')
      const usage = await (await connect(url)).usage()
      if (json) return printJson(usage)
      const lines: [string, string][] = [
        ['leases', String(usage.leases)],
        ['held', `${number(usage.heldMs / 1000)} s`],
        ['cores', `${number(usage.coreMs / 1000)} core-seconds`],
        ['memory', `${number(usage.memoryByteMs / 1000 / 2 ** 30)} GiB-seconds`],
        ['CPU time', `${number(usage.cpuMs / 1000)} s`],
      ]
      await print(lines.map(([name, value]) => `${name.padEnd(10)}${value}\n`).join(''))
    })
}

function number(value: number): string {
  return value.toLocaleString('en-US', { maximumFractionDigits: 3 })
}
