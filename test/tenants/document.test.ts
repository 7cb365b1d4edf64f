// docs/security.md says what is true: its table is that of the code, its commands work.
import { execFileSync } from 'node:child_process'
import { chmodSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, expect, it } from 'vitest'
import { Client } from '../../lib/index.js'
import { routeAccess } from '../../resource-manager/src/access.js'
import { root } from '../cli/support.js'
import { cleanUp, onCleanUp, startManager, startNode, temporaryFolder } from './support.js'

const text = readFileSync(join(root, 'docs/security.md'), 'utf8')
const blocks = [...text.matchAll(/```sh\n(.*?)```/gs)].map(([, block]) => block ?? '')

afterEach(cleanUp)

it('has the routes and roles of the resource manager', () => {
  const table = text.slice(text.indexOf('<!-- routes -->'), text.indexOf('`/metrics` and'))
  const rows = [...table.matchAll(/^\| `(.*?)` +\| (.*?) +\|$/gm)].map(([, route, roles]) => [
    route,
    roles?.trim(),
  ])
  expect(rows).toEqual(
    Object.entries(routeAccess).map(([route, roles]) => [route, roles.join(', ')]),
  )
})

it('makes keys and certificates with which a cluster works', async () => {
  const folder = temporaryFolder()
  const program = join(folder, 'rfaas')
  const main = join(root, 'dist/lib/cli/main.js')
  writeFileSync(program, `#!/bin/sh\nexec '${process.execPath}' '${main}' "$@"\n`)
  chmodSync(program, 0o700)
  const env = { ...process.env, PATH: `${folder}:${process.env['PATH'] ?? ''}` }
  for (const block of blocks.slice(0, 2)) {
    execFileSync('bash', ['-e', '-c', block], { cwd: folder, env, stdio: 'pipe' })
  }
  const at = (name: string): string => join(folder, name)
  for (const secret of ['ca.key', 'n1.key', 'alice.key', 'keys.json']) {
    expect((statSync(at(secret)).mode & 0o777).toString(8), secret).toBe('600')
  }
  const ca = at('ca.pem')
  const url = await startManager({
    ...{ keysFile: at('keys.json'), nodeCa: ca },
    ...{ tlsCert: at('manager.pem'), tlsKey: at('manager.key') },
  })
  await startNode({
    ...{ name: 'n1', resourceManager: url, keyFile: at('n1-api.key'), ca },
    ...{ tlsCert: at('n1.pem'), tlsKey: at('n1.key') },
  })
  const client = await Client.connect(url, { keyFile: at('alice.key'), ca })
  onCleanUp(() => client.close())
  expect(await client.nodes()).toMatchObject([{ name: 'n1', state: 'up' }])
  await using lease = await client.lease({ memory: '64MiB' })
  expect(lease.memoryBytes).toBe(64 * 2 ** 20)
})
