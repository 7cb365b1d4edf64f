// What operators copy: systemd units and scripts for Slurm.
import { execFileSync } from 'node:child_process'
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, expect, test } from 'vitest'

import { Client } from '../../lib/index.js'
import { packageRoot } from '../../lib/package-root.js'
import { Daemon } from '../faults/daemon.js'
import { cleanUp, node, onCleanUp, startSlurm, temporaryFolder } from './support.js'

afterEach(cleanUp)

const scripts = join(packageRoot(), 'scripts')

test('systemd finds no fault with the units', () => {
  const folder = temporaryFolder()
  const names = readdirSync(join(scripts, 'systemd'))
  expect(names).toHaveLength(2)
  for (const name of names) {
    const unit = readFileSync(join(scripts, 'systemd', name), 'utf8')
    // Where rfaas is installed is another matter.
    writeFileSync(join(folder, name), unit.replace('/usr/bin/rfaas', process.execPath))
    execFileSync('systemd-analyze', ['verify', '--man=no', join(folder, name)], { stdio: 'pipe' })
  }
})

test('Prolog and Epilog take the leases of a node back for a job, and lend it again', async () => {
  const folder = temporaryFolder()
  const cli = join(packageRoot(), 'dist/lib/cli/main.js')
  const executable = (name: string, script: string): string => {
    const path = join(folder, name)
    writeFileSync(path, `#!/bin/sh\n${script}\n`, { mode: 0o755 })
    return path
  }
  executable('rfaas', `exec ${process.execPath} ${cli} "$@"`)
  const settings = join(folder, 'slurm.env')
  const [prolog, epilog] = ['prolog', 'epilog'].map((name) => {
    const script = join(scripts, `slurm/${name}.sh`)
    return executable(name, `RFAAS_SLURM_ENV=${settings} exec ${script}`)
  })
  const lines = `Prolog=${prolog}\nEpilog=${epilog}\nPrologFlags=Alloc\n`
  const slurm = await startSlurm([node('n1')], { lines })
  const manager = await Daemon.start([
    ...['resource-manager', '--port', '0', '--data-dir', join(folder, 'manager')],
  ])
  onCleanUp(() => manager.end('SIGTERM'))
  const executorManager = await Daemon.start([
    ...['executor-manager', '--port', '0', '--name', 'n1', '--resource-manager', manager.url],
    ...['--cores', '1', '--data-dir', join(folder, 'node')],
  ])
  onCleanUp(() => executorManager.end('SIGTERM'))
  writeFileSync(settings, `RFAAS_URL=${manager.url}\nPATH=${folder}:$PATH\n`)
  const client = await Client.connect(manager.url)
  onCleanUp(() => client.close())
  const lease = await client.lease({ cores: 1, memory: '64MiB', wait: '20s' })
  lease.on('revoking', () => void lease.release())
  const job = await slurm.submit(`${join(folder, 'rfaas')} nodes --json --url ${manager.url}`)
  await slurm.eventually('the job has run', async () => {
    return (await slurm.job(job)).job_state === 'COMPLETED'
  })
  expect(JSON.parse(slurm.output(job))).toMatchObject([{ draining: true, freeCores: 1 }])
  await slurm.eventually('the node lends again', async () => {
    return (await client.nodes()).every(({ draining }) => !draining)
  })
})

test('a shell finds no fault with the scripts for Slurm', () => {
  const names = readdirSync(join(scripts, 'slurm'))
  expect(names).toHaveLength(3)
  for (const name of names) execFileSync('sh', ['-n', join(scripts, 'slurm', name)])
})
