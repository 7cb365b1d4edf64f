// The command line of the executor manager: flags and a JSON config file with the same names.
import { Command, Option } from 'commander'
import { serve, toPort, withConfig, withSecurityFlags } from '../../lib/control/command.js'
import { logLevels } from '../../lib/control/log.js'
import type { ExecutorManagerOptions } from './config.js'
import { confinementModes } from './confinement.js'
import { startExecutorManager } from './index.js'

const names = [
  'host',
  'port',
  'name',
  'resourceManager',
  'advertise',
  'dataDir',
  'modulesDir',
  'runtimeDir',
  'cores',
  'memoryBytes',
  'switch',
  'idleUntil',
  'providers',
  'verbsAddress',
  'device',
  'maxPackageBytes',
  'maxStoreBytes',
  'graceMs',
  'noticeMs',
  'job',
  'readyTimeoutMs',
  'pool',
  'confinement',
  'uidRange',
  'allowNetwork',
  'keysFile',
  'tlsCert',
  'tlsKey',
  'keyFile',
  'ca',
  'allowPlaintext',
  'logLevel',
] as const

/** For `program.addCommand()` or on its own. Ends the process cleanly on SIGTERM and SIGINT. */
export function executorManagerCommand(): Command {
  return withSecurityFlags(new Command('executor-manager'))
    .description('lend the cores of this machine: start, watch and stop executors')
    .option('--host <address>', 'address to listen on (default: 127.0.0.1)')
    .option('--port <port>', 'port to listen on, 0 for a free one (default: 7071)', toPort)
    .option('--name <name>', 'name of this node (default: the host name)')
    .option('--resource-manager <urls>', 'where to register (default: http://127.0.0.1:7070)')
    .option('--advertise <url>', 'URL under which clients reach this manager')
    .option('--data-dir <path>', 'where function packages are kept')
    .option('--modules-dir <path>', 'node_modules that functions may import from')
    .option('--runtime-dir <path>', 'parent of the folder with sockets')
    .option('--cores <count or ids>', 'cores to lend: 4, or 0-3,8 (default: all)', toCores)
    .option('--memory-bytes <size>', 'memory to lend, such as 16GiB (default: all)')
    .option('--switch <name>', 'that this node is on, for placement by locality')
    .option('--idle-until <time>', 'when others want this node, for placement by idle time')
    .option('--providers <names...>', 'fabrics to offer (default: all that work)')
    .option('--verbs-address <ip:port>', 'where verbs workers listen (default: 0.0.0.0:0)')
    .option('--device <name>', 'RDMA device (default: the first that works)')
    .option('--max-package-bytes <size>', 'longest function package (default: 256MiB)')
    .option('--max-store-bytes <size>', 'unused packages are removed beyond this (default: 4GiB)')
    .option('--grace-ms <time>', 'for running calls after the end of a lease (default: 1s)')
    .option('--notice-ms <time>', 'for leases when this manager is told to end (default: 0)')
    .option('--job <id>', 'batch job that this manager runs in')
    .option('--ready-timeout-ms <time>', 'in which a worker has to be ready (default: 15s)')
    .option('--pool <count>', 'workers that wait, for each runtime (default: 1)', Number)
    .addOption(
      new Option(
        '--confinement <mode>',
        'of functions (default: auto, what this host can do)',
      ).choices(confinementModes),
    )
    .option('--uid-range <first-last>', 'users for leases (default: 1900000000-1900065535)')
    .option('--allow-network', 'functions may use the network')
    .addOption(
      new Option('--key-file <file>', 'API key of this node (mode 0600)').env('RFAAS_KEY_FILE'),
    )
    .option(
      '--ca <file>',
      'authorities of the resource manager (PEM; default: those of the system)',
    )
    .addOption(new Option('--log-level <level>', 'least severity to log').choices(logLevels))
    .option('--config <file>', 'JSON object with these options; flags win')
    .action((flags: ExecutorManagerOptions & { config?: string }) =>
      serve(() => startExecutorManager(withConfig<ExecutorManagerOptions>(flags, names))),
    )
}

/** A number alone is a count; one core by its id is written 3-3. */
function toCores(text: string): number | string {
  return /^\d+$/.test(text) ? Number(text) : text
}
