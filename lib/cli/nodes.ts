// `rfaas nodes`: what the cluster has to lend. And what an operator does to nodes.
import { setTimeout as sleep } from 'node:timers/promises'

import { Command } from 'commander'

import type { Client } from '../client/client.js'
import { RfaasError } from '../errors.js'
import type { NodeInfo } from '../control/schemas.js'
import { formatBytes, formatDuration } from '../units.js'
import { duration, jsonOption, withTarget, type Target } from './options.js'
import { note, print, printJson, table } from './output.js'

export function nodesCommand(): Command {
  return withTarget(new Command('nodes'))
    .description('list the nodes and what is free on them')
    .addOption(jsonOption())
    .addCommand(removeCommand())
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
          {
            title: 'STATE',
            value: ({ state, draining }) => (draining ? `${state}, draining` : state),
          },
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

/** Options that this command shares with `rfaas nodes`, such as --url, are read by that one. */
function removeCommand(): Command {
  return new Command('remove')
    .description('forget a node that does not come back; its leases are closed as lost (operator)')
    .argument('<node>')
    .option('--force', 'also one that is up: it comes back without its leases')
    .action(async (node: string, { force = false }: { force?: boolean }, command: Command) => {
      const { connect } = await import('./connect.js')
      const target = command.optsWithGlobals<Target>()
      await (await connect(target)).removeNode(node, { force })
      note(`node ${node} is forgotten`)
    })
}

export function drainCommand(): Command {
  return withTarget(new Command('drain'))
    .description('grant nothing new on a node, until undrain (operator)')
    .argument('<node>')
    .option(
      '--notice <time>',
      'take its leases back: running calls may go on for so long',
      duration,
    )
    .option('--now', 'take its leases back without notice')
    .option(
      '--wait <time>',
      'until nothing is leased on it any more, for at most so long',
      duration,
    )
    .action(async (node: string, { notice, now = false, wait, ...target }: Target & DrainFlags) => {
      const { connect } = await import('./connect.js')
      const taken = now ? 0 : notice
      const client = await connect(target)
      await client.drain(node, taken === undefined ? {} : { notice: taken })
      if (wait !== undefined) await untilEmpty(client, node, wait)
      note(`node ${node} is draining: 'rfaas undrain ${node}' lends its cores again`)
    })
}

/** Rejects when it is not within `withinMs`. */
async function untilEmpty(client: Client, name: string, withinMs: number): Promise<void> {
  const giveUp = performance.now() + withinMs
  for (;;) {
    const node = (await client.nodes()).find((candidate) => candidate.name === name)
    const leased = node === undefined ? 0 : node.cores - node.freeCores
    if (leased === 0) return
    if (performance.now() > giveUp) {
      throw new RfaasError(
        'ERR_RFAAS_DEADLINE',
        `${leased} cores of node ${name} are still leased after ${formatDuration(withinMs)}: take them back with --notice or --now`,
      )
    }
    await sleep(Math.min(100, withinMs))
  }
}

interface DrainFlags {
  notice?: number
  wait?: number
  now?: boolean
}

export function undrainCommand(): Command {
  return withTarget(new Command('undrain'))
    .description('grant on a node again (operator)')
    .argument('<node>')
    .action(async (node: string, target: Target) => {
      const { connect } = await import('./connect.js')
      await (await connect(target)).undrain(node)
      note(`node ${node} lends its cores`)
    })
}

/** Whole seconds; clocks of two machines may disagree. */
function ago(milliseconds: number): string {
  const seconds = Math.max(0, Math.round(milliseconds / 1000))
  return seconds === 0 ? '0s' : formatDuration(seconds * 1000)
}
