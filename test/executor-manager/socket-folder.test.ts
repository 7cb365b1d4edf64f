import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, describe, expect, it } from 'vitest'

import { createSocketFolder } from '../../executor-manager/src/socket-folder.js'
import { cleanUp, temporaryDirectory } from './support.js'

afterEach(cleanUp)

describe('a new folder for sockets', () => {
  it('replaces those of managers that have ended, and leaves all others alone', () => {
    const parent = temporaryDirectory()
    const running = createSocketFolder(parent)
    const owner = JSON.parse(readFileSync(join(running, 'owner.json'), 'utf8')) as object
    const folders = {
      ended: { ...owner, startTicks: '1' },
      'of-another-boot': { ...owner, bootId: '' },
      'of-nobody': { name: 'somebody' },
      'of-a-running-one': owner,
    }
    for (const [name, content] of Object.entries(folders)) {
      mkdirSync(join(parent, `rfaas-${name}`))
      writeFileSync(join(parent, `rfaas-${name}`, 'owner.json'), JSON.stringify(content))
    }
    mkdirSync(join(parent, 'rfaas-without-owner'))

    const fresh = createSocketFolder(parent)
    expect(existsSync(fresh)).toBe(true)
    expect(existsSync(running)).toBe(true)
    const left = Object.keys(folders).filter((name) => existsSync(join(parent, `rfaas-${name}`)))
    expect(left).toEqual(['of-nobody', 'of-a-running-one'])
    expect(existsSync(join(parent, 'rfaas-without-owner'))).toBe(true)
  })
})
