// The command line of the resource manager: flags and a JSON config file with the same names.
import { Command, Option } from 'commander'
import { serve, toPort, withConfig, withSecurityFlags } from '../../lib/control/command.js'
import { logLevels } from '../../lib/control/log.js'
import { schedulerNames } from '../schedulers/policies.js'
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
  'scheduler',
  'keysFile',
  'tlsCert',
  'tlsKey',
  'nodeCa',
  'allowPlaintext',
  'logLevel',
] as const

/** For `program.addCommand()` or on its own. Ends the process cleanly on SIGTERM and SIGINT. */
export function resourceManagerCommand(): Command {
  return withSecurityFlags(new Command('resource-manager'))
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
    .addOption(
      new Option('--scheduler <policy>', 'how nodes are chosen (default: first-fit)').choices(
        schedulerNames,
      ),
    )
    .option('--node-ca <file>', 'authorities of the nodes, which then have to show a certificate')
    .addOption(new Option('--log-level <level>', 'least severity to log').choices(logLevels))
    .option('--config <file>', 'JSON object with these options; flags win')
    .action((flags: ResourceManagerOptions & { config?: string }) =>
      serve(() => startResourceManager(withConfig<ResourceManagerOptions>(flags, names))),
    )
}
