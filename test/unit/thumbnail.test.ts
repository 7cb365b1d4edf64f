import { copyFile, mkdtemp, readFile, rm, symlink } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import sharp, { type Sharp } from 'sharp'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { average, checkThumbnail, decode, type Raster } from '../../examples/thumbnail/check.js'

const root = join(import.meta.dirname, '..', '..')

interface Package {
  thumbnail(input: Uint8Array): Promise<Uint8Array>
  preview(input: Uint8Array): Promise<Uint8Array>
}

describe('the thumbnail package', () => {
  let store: string
  let loaded: Package
  let photo: Buffer
  let original: Raster

  // As on a node: the file alone, under another name, in a folder with a link to the modules.
  beforeAll(async () => {
    store = await mkdtemp(join(tmpdir(), 'rfaas-thumbnail-'))
    const copy = join(store, `${'0a'.repeat(32)}.mjs`)
    await copyFile(join(root, 'examples', 'thumbnail', 'thumbnail.mjs'), copy)
    await symlink(join(root, 'node_modules'), join(store, 'node_modules'))
    loaded = (await import(pathToFileURL(copy).href)) as Package
    photo = await readFile(join(root, 'examples', 'data', 'photo.jpg'))
    original = await decode(photo)
  })
  afterAll(() => rm(store, { recursive: true }))

  it('makes a photograph fit into 200 × 200 pixels', async () => {
    const check = await checkThumbnail(original, await loaded.thumbnail(photo), 200)
    expect(check).toMatchObject({ width: 200, problems: [] })
  })

  it('makes a preview that fits into 800 × 800 pixels', async () => {
    const check = await checkThumbnail(original, await loaded.preview(photo), 800)
    expect(check).toMatchObject({ width: 800, problems: [] })
  })

  it('shows the picture as its EXIF orientation says', async () => {
    const turned = await sharp(photo).resize(1200).withMetadata({ orientation: 6 }).toBuffer()
    const check = await checkThumbnail(await decode(turned), await loaded.thumbnail(turned), 200)
    expect(check).toMatchObject({ height: 200, problems: [] })
  })

  it('does not enlarge', async () => {
    const small = await sharp(photo).resize(120).toBuffer()
    const check = await checkThumbnail(await decode(small), await loaded.thumbnail(small), 200)
    expect(check).toMatchObject({ width: 120, problems: [] })
  })

  it('refuses what is not a picture', async () => {
    await expect(loaded.thumbnail(photo.subarray(1000, 2000))).rejects.toThrow('unsupported image')
  })

  it.each<[string, (right: Sharp) => Sharp, RegExp]>([
    ['is mirrored', (right) => right.flop(), /^PSNR/],
    ['is upside down', (right) => right.flip(), /^PSNR/],
    ['has red and blue exchanged', (right) => right.recomb([[0, 0, 1], [0, 1, 0], [1, 0, 0]]), /^PSNR/], // prettier-ignore
    ['is a little darker', (right) => right.linear(0.8), /^PSNR/],
    ['has the wrong size', (right) => right.resize(190), /^190 × 10[67] pixels; 200.0 × 112.5/],
  ])('fails the check if it %s', async (_case, spoil, problem) => {
    const right = await loaded.thumbnail(photo)
    const wrong = await spoil(sharp(right)).jpeg({ quality: 95 }).toBuffer()
    const check = await checkThumbnail(original, wrong, 200)
    expect(check.problems[0]).toMatch(problem)
  })

  it('fails the check if it shows a quarter of the picture', async () => {
    const quarter = { left: 0, top: 0, width: 2656, height: 1494 }
    const other = await loaded.thumbnail(await sharp(photo).extract(quarter).toBuffer())
    expect((await checkThumbnail(original, other, 200)).problems).toHaveLength(1)
  })
})

describe('the average of areas', () => {
  const gray = (width: number, height: number, values: number[]): Raster => ({
    width,
    height,
    pixels: Uint8Array.from(values.flatMap((value) => [value, value, value])),
  })
  const firstChannel = (result: Float64Array) => [...result].filter((_, i) => i % 3 === 0)

  it('weighs pixels by the part of them that is covered', () => {
    const result = firstChannel(average(gray(3, 1, [0, 90, 30]), 2, 1))
    expect(result[0]).toBeCloseTo(30, 12)
    expect(result[1]).toBeCloseTo(50, 12)
  })

  it('works in both directions', () => {
    expect(firstChannel(average(gray(2, 2, [10, 20, 30, 60]), 1, 1))).toEqual([30])
    expect(firstChannel(average(gray(1, 4, [10, 20, 30, 60]), 1, 2))).toEqual([15, 45])
  })
})
