// `rfaas nodes`: what the cluster has to lend.
import { Command } from 'commander'

import type { NodeInfo } from '../control/schemas.js'
import { formatBytes, formatDuration } from '../units.js'
import { jsonOption, withTarget, type Target } from './options.js'
import { note, print, printJson, table } from './output.js'

export function nodesCommand(): Command {
  return withTarget(new Command('nodes'))
    .description('list the nodes and what is free on them')
    .addOption(jsonOption())
    .action(async ({ json = false, ...target }: Target & { json?: boolean }) => {
      const { connect } = await import('./connect.js')
      const nodes = await (await connect(target)).nodes()
      if (json) return printJson(nodes)
      if (nodes.length === 0) {
        return note("no node is registered; 'rfaas executor-manager' makes a machine one")
      }
      const now = Date.now()
      await print(
        table<NodeInfo>(nodes, [
          { title: 'NODE', value: (node) => node.name },
          { title: 'STATE', value: (node) => node.state },
          {
            title: 'FREE CORES',
            value: (node) => `${node.freeCores} of ${node.cores}`,
            right: true,
          },
          {
            title: 'FREE MEMORY',
            value: (node) =>
              `${formatBytes(node.freeMemoryBytes)} of ${formatBytes(node.memoryBytes)}`,
            right: true,
          },
          {
            title: 'FABRIC',
            value: ({ providers }) =>
              providers.flatMap(({ name, available }) => (available ? [name] : [])).join(', ') ||
              'none',
          },
          {
            title: 'SEEN',
            value: (node) => `${ago(now - Date.parse(node.lastSeen))} ago`,
            right: true,
          },
          { title: 'EXECUTOR MANAGER', value: (node) => node.url },
        ]),
      )
    })
}

/** Whole seconds; clocks of two machines may disagree. */
function ago(milliseconds: number): string {
  const seconds = Math.max(0, Math.round(milliseconds / 1000))
  return seconds === 0 ? '0s' : formatDuration(seconds * 1000)
}
