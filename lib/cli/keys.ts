// `rfaas keys`: who may use a cluster. It works on the file itself; the resource manager notices.
import { closeSync, existsSync, fsyncSync, openSync, renameSync, rmSync, writeSync } from 'node:fs'
import { dirname } from 'node:path'
import { Command, Option } from 'commander'

import { checkArgument } from '../control/check.js'
import { checkRecord, createKey, KeyRecord, readKeysFile } from '../control/keys.js'
import type { Role } from '../control/principal.js'
import { formatBytes } from '../units.js'
import { CommandError } from './failure.js'
import { bytes, duration, integer, jsonOption } from './options.js'
import { note, print, printJson, table } from './output.js'

interface AddFlags {
  keysFile: string
  role: Role
  tenant?: string
  node?: string
  expires?: number
  maxCores?: number
  maxMemory?: number
  maxLeases?: number
}

export function keysCommand(): Command {
  return new Command('keys')
    .description('say who may use a cluster: add, list and remove API keys')
    .addCommand(addCommand())
    .addCommand(listCommand())
    .addCommand(removeCommand())
    .addHelpText(
      'after',
      `
The file holds hashes only; the resource manager reads it again when it changes.

Examples:
  umask 077
  rfaas keys add --keys-file keys.json --tenant alice --max-cores 16 > alice.key
  rfaas keys add --keys-file keys.json --role node --node n1 > n1.key
  rfaas keys add --keys-file keys.json --role operator > operator.key`,
    )
}

function addCommand(): Command {
  const count = integer(0, Number.MAX_SAFE_INTEGER)
  return new Command('add')
    .description('make a key and print it, this once')
    .addOption(fileOption())
    .addOption(
      new Option('--role <role>', 'what it is for')
        .choices(['tenant', 'node', 'operator'])
        .default('tenant'),
    )
    .option('--tenant <name>', 'whose leases it requests (operator: operator)')
    .option('--node <name>', 'the node that it speaks for, with --role node')
    .option('--expires <time>', 'when it ends, from now: 90d', duration)
    .option('--max-cores <count>', 'that its tenant may hold at once', count)
    .option('--max-memory <size>', 'that its tenant may hold at once', bytes)
    .option('--max-leases <count>', 'that its tenant may hold at once', count)
    .action(add)
}

async function add({ keysFile, role, expires, ...flags }: AddFlags): Promise<void> {
  const quota = {
    ...(flags.maxCores === undefined ? {} : { maxCores: flags.maxCores }),
    ...(flags.maxMemory === undefined ? {} : { maxMemoryBytes: flags.maxMemory }),
    ...(flags.maxLeases === undefined ? {} : { maxLeases: flags.maxLeases }),
  }
  const tenant = flags.tenant ?? (role === 'operator' ? 'operator' : undefined)
  const { key, record } = createKey({
    role,
    ...(tenant === undefined ? {} : { tenant }),
    ...(flags.node === undefined ? {} : { node: flags.node }),
    ...(expires === undefined ? {} : { expiresAt: new Date(Date.now() + expires).toISOString() }),
    ...(Object.keys(quota).length === 0 ? {} : { quota }),
  })
  checkRecord(checkArgument(KeyRecord, record, 'key'))
  change(keysFile, (keys) => [...keys, record])
  await print(`${key}\n`)
  note(
    `key ${record.id} for ${whose(record)}: it is shown this once, keep it in a file of mode 0600`,
  )
}

function listCommand(): Command {
  return new Command('list')
    .description('show the keys, without what is secret')
    .addOption(fileOption())
    .addOption(jsonOption())
    .action(async ({ keysFile, json = false }: { keysFile: string; json?: boolean }) => {
      const keys = readKeysFile(keysFile)
      if (json) return printJson(keys.map(({ sha256: _, ...shown }) => shown))
      await print(
        table(keys, [
          { title: 'KEY', value: ({ id }) => id },
          { title: 'ROLE', value: ({ role }) => role },
          { title: 'FOR', value: ({ tenant, node }) => tenant ?? node ?? '-' },
          { title: 'MADE', value: ({ createdAt }) => createdAt.slice(0, 10) },
          { title: 'EXPIRES', value: ({ expiresAt }) => expiresAt?.slice(0, 10) ?? 'never' },
          { title: 'QUOTA', value: quotaText },
        ]),
      )
    })
}

function removeCommand(): Command {
  return new Command('remove')
    .description('end a key: it stops working at once')
    .argument('<id>', 'as keys list shows it')
    .addOption(fileOption())
    .action((id: string, { keysFile }: { keysFile: string }) => {
      change(keysFile, (keys) => {
        const kept = keys.filter((key) => key.id !== id)
        if (kept.length < keys.length) return kept
        throw new CommandError(`${keysFile} has no key ${id}`, {
          hint: `'rfaas keys list --keys-file ${keysFile}' shows what there is`,
        })
      })
      note(`key ${id} is removed`)
    })
}

function fileOption(): Option {
  return new Option('--keys-file <file>', 'that the resource manager reads').makeOptionMandatory()
}

/** The new content is there whole or not at all. The file that it is written to is also the lock: two
 * commands at the same time would lose one key. */
function change(path: string, edit: (keys: KeyRecord[]) => KeyRecord[]): void {
  const partial = `${path}.partial`
  let file: number
  try {
    file = openSync(partial, 'wx', 0o600)
  } catch (cause) {
    const exists = (cause as NodeJS.ErrnoException).code === 'EEXIST'
    throw new CommandError(`${path} cannot be changed: ${(cause as Error).message}`, {
      cause,
      ...(exists && { hint: `another command is changing it; if none is, remove ${partial}` }),
    })
  }
  try {
    const keys = edit(existsSync(path) ? readKeysFile(path) : [])
    writeSync(file, `${JSON.stringify({ keys }, null, 2)}\n`)
    fsyncSync(file)
    renameSync(partial, path)
    syncFolder(dirname(path))
  } catch (error) {
    rmSync(partial, { force: true })
    throw error
  } finally {
    closeSync(file)
  }
}

/** So that the new name of the file survives a power failure. */
function syncFolder(path: string): void {
  const folder = openSync(path, 'r')
  try {
    fsyncSync(folder)
  } finally {
    closeSync(folder)
  }
}

function whose({ role, tenant, node }: KeyRecord): string {
  return role === 'node' ? `node ${String(node)}` : `${role} ${String(tenant)}`
}

function quotaText({ quota }: KeyRecord): string {
  const { maxCores, maxMemoryBytes, maxLeases } = quota ?? {}
  const limits = [
    maxCores === undefined ? undefined : `${maxCores} cores`,
    maxMemoryBytes === undefined ? undefined : formatBytes(maxMemoryBytes),
    maxLeases === undefined ? undefined : `${maxLeases} leases`,
  ]
  return limits.filter((text) => text !== undefined).join(', ') || '-'
}
