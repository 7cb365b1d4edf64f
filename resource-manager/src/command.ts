// The command line of the resource manager: flags and a JSON config file with the same names.
import { readFileSync } from 'node:fs'
import { Command, InvalidArgumentError, Option } from 'commander'
import { logLevels } from '../../lib/control/log.js'
import { RfaasError, invalidArgument } from '../../lib/errors.js'
import type { ResourceManagerOptions } from './config.js'
import { startResourceManager } from './index.js'

const names = [
  'host',
  'port',
  'dataDir',
  'heartbeatMs',
  'nodeTimeoutMs',
  'maxLeaseMs',
  'minFreeBytes',
  'allowRemote',
  'logLevel',
] as const

/** For `program.addCommand()` or on its own. Ends the process cleanly on SIGTERM and SIGINT. */
export function resourceManagerCommand(): Command {
  return new Command('resource-manager')
    .description('grant, renew and revoke leases on the cores of the registered nodes')
    .option('--host <address>', 'address to listen on (default: 127.0.0.1)')
    .option('--port <port>', 'port to listen on, 0 for a free one (default: 7070)', toPort)
    .option('--data-dir <path>', 'where leases, ledger and signing key are kept')
    .option('--heartbeat-ms <time>', 'interval in which nodes report (default: 2s)')
    .option(
      '--node-timeout-ms <time>',
      'silence after which a node is lost (default: 3 heartbeats)',
    )
    .option('--max-lease-ms <time>', 'longest lease and renewal (default: 7d)')
    .option('--min-free-bytes <size>', 'disk space to leave unused (default: 64MiB)')
    .option('--allow-remote', 'listen on an address that other hosts can reach')
    .addOption(new Option('--log-level <level>', 'least severity to log').choices(logLevels))
    .option('--config <file>', 'JSON object with these options; flags win')
    .action(async (flags: ResourceManagerOptions & { config?: string }) => {
      const { config, ...given } = flags
      const options = { ...(config === undefined ? {} : readConfig(config)), ...given }
      // Before the start: a signal that comes early must not leave the start half done.
      const signalled = new Promise((resolve) => {
        process.once('SIGTERM', resolve)
        process.once('SIGINT', resolve)
      })
      const manager = await startResourceManager(options)
      // One line for scripts: the port may have been chosen by the system.
      process.stdout.write(`${manager.url}\n`)
      await signalled
      await manager.close()
    })
}

function toPort(text: string): number {
  if (!/^\d{1,5}$/.test(text)) throw new InvalidArgumentError('must be an integer from 0 to 65535')
  return Number(text)
}

function readConfig(path: string): ResourceManagerOptions {
  let value: unknown
  try {
    value = JSON.parse(readFileSync(path, 'utf8'))
  } catch (error) {
    throw new RfaasError(
      'ERR_RFAAS_INVALID_ARGUMENT',
      `config file ${path} cannot be used: ${(error as Error).message}`,
      { cause: error, field: 'config', value: path },
    )
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw invalidArgument('config', value, 'a JSON object')
  }
  for (const key of Object.keys(value)) {
    if (!(names as readonly string[]).includes(key)) {
      throw invalidArgument(`a key of ${path}`, key, `one of ${names.join(', ')}`)
    }
  }
  return value as ResourceManagerOptions
}
