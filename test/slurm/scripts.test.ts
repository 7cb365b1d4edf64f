// What operators copy: systemd units and scripts for Slurm.
import { execFileSync } from 'node:child_process'
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, expect, test } from 'vitest'

import { packageRoot } from '../../lib/package-root.js'
import { cleanUp, temporaryFolder } from './support.js'

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

test('a shell finds no fault with the scripts for Slurm', () => {
  const names = readdirSync(join(scripts, 'slurm'))
  expect(names).toHaveLength(3)
  for (const name of names) execFileSync('sh', ['-n', join(scripts, 'slurm', name)])
})
