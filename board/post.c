/*
 * board_post(): what firmware would have done before it starts an operating
 * system, for kernels that are loaded directly. Chipset registers are written
 * through PCI configuration space and ports, as firmware does it, so that
 * there is one way to configure the machine.
 *
 *     low memory when it is done
 *     00000  interrupt vectors: stubs in the ROM
 *     00400  BIOS data area
 *     9FC00  EBDA
 *     F0000  RAM with the ROM's content, write-protected: RSDP, SMBIOS entry
 *            point, stubs
 *     and ACPI and SMBIOS tables in the last 64 KiB of RAM below 4 GiB
 *
 * The stubs are honest about there being no BIOS: services return "not
 * supported", hardware interrupts are acknowledged, and whatever leads to the
 * reset vector resets the machine.
 */
#include <assert.h>

#include "board/pc_internal.h"

/* Chipset registers (datasheets: MCH 5.1, ICH9 13.1). */
enum post_register {
    MCH_PCIEXBAR = 0x60,
    MCH_PAM0 = 0x90, /* to PAM6 */
    LPC_PMBASE = 0x40,
    LPC_ACPI_CNTL = 0x44,
    LPC_PIRQA_ROUT = 0x60,
    LPC_PIRQE_ROUT = 0x68,
};

enum post_value {
    PCIEXBAR = 0xb0000000,
    PCIEXBAR_ENABLE = 1,
    PMBASE = 0x600,
    ACPI_CNTL_ENABLE = 0x80, /* and SCI on IRQ 9 */
    PAM0_RAM = 0x30,         /* F0000H: reads and writes go to RAM */
    PAM0_READ_ONLY = 0x10,
};

enum post_port {
    PORT_PIC1 = 0x20,
    PORT_PIC2 = 0xa0,
    PORT_PIT0 = 0x40,
    PORT_PIT_MODE = 0x43,
    PORT_ELCR1 = 0x4d0,
    PORT_ELCR2 = 0x4d1,
};

enum uart_register { UART_DLL = 0, UART_DLM = 1, UART_LCR = 3 };
enum uart_lcr { UART_LCR_8N1 = 0x03, UART_LCR_DLAB = 0x80 };
static const uint16_t com_port[PC_COM_PORTS] = {0x3f8, 0x2f8, 0x3e8, 0x2e8};

enum lapic_register {
    LAPIC_SVR = 0xf0,
    LAPIC_LVT_LINT0 = 0x350,
    LAPIC_LVT_LINT1 = 0x360,
};

/* segment 40H */
enum bda_field {
    BDA = 0x400,
    BDA_COM = 0x400, /* four ports */
    BDA_EBDA_SEGMENT = 0x40e,
    BDA_EQUIPMENT = 0x410,
    BDA_BASE_KIB = 0x413,
    BDA_KEY_HEAD = 0x41a,
    BDA_KEY_TAIL = 0x41c,
    BDA_KEY_START = 0x480,
    BDA_KEY_END = 0x482,
    BDA_KEYBOARD = 0x496,
    BDA_END = 0x500,
};

/* Offsets in the F-segment. */
enum rom_entry {
    ROM_RSDP = 0x0000,
    ROM_SMBIOS = 0x0040,
    ROM_RESET = 0xff00,
    ROM_EQUIPMENT = 0xff10,   /* INT 11H */
    ROM_MEMORY = 0xff20,      /* INT 12H */
    ROM_UNSUPPORTED = 0xff30, /* CF set, AH = 86H */
    ROM_EOI1 = 0xff40,        /* hardware interrupts */
    ROM_EOI2 = 0xff48,
    ROM_IRET = 0xff53, /* where IBM's BIOS has its dummy handler */
    ROM_VECTOR = 0xfff0,
};
#define ROM_SEGMENT 0xf000u

/* ---- the ROM ---- */

static const uint8_t code_reset[] = {
    0xba, 0xf9, 0x0c, /* mov dx, 0cf9h */
    0xb0, 0x02,       /* mov al, 2: hard reset .. */
    0xee,             /* out dx, al */
    0xb0, 0x06,       /* mov al, 6: .. now */
    0xee,             /* out dx, al */
    0xf4,             /* hlt */
    0xeb, 0xfd,       /* jmp to it */
};
static const uint8_t code_equipment[] = {
    0x1e,             /* push ds */
    0xb8, 0x40, 0x00, /* mov ax, 40h */
    0x8e, 0xd8,       /* mov ds, ax */
    0xa1, 0x10, 0x00, /* mov ax, [equipment] */
    0x1f, 0xcf,       /* pop ds; iret */
};
static const uint8_t code_memory[] = {
    0x1e, 0xb8, 0x40, 0x00, 0x8e, 0xd8, /* the same */
    0xa1, 0x13, 0x00,                   /* mov ax, [base memory] */
    0x1f, 0xcf,
};
static const uint8_t code_unsupported[] = {
    0x55,                   /* push bp */
    0x89, 0xe5,             /* mov bp, sp */
    0x80, 0x4e, 0x06, 0x01, /* or byte [bp + 6], 1: CF of the caller */
    0x5d,                   /* pop bp */
    0xb4, 0x86,             /* mov ah, 86h */
    0xcf,                   /* iret */
};
static const uint8_t code_eoi1[] = {0x50, 0xb0, 0x20, 0xe6, 0x20, 0x58, 0xcf};
static const uint8_t code_eoi2[] = {0x50, 0xb0, 0x20, 0xe6, 0xa0, 0xe6, 0x20, 0x58, 0xcf};
static const uint8_t code_iret[] = {0xcf};
static const uint8_t code_vector[] = {
    0xe9, 0x0d, 0xff, /* jmp near ROM_RESET: CS is not F000H at power-on */
    0x00, 0x00, '0',  '1', '/', '0', '1', '/', '2', '5', 0x00, 0xfc, 0x00, /* date, model AT */
};

static const struct {
    uint16_t at;
    uint16_t bytes;
    const uint8_t *code;
} rom_parts[] = {
    {ROM_RESET, sizeof code_reset, code_reset},
    {ROM_EQUIPMENT, sizeof code_equipment, code_equipment},
    {ROM_MEMORY, sizeof code_memory, code_memory},
    {ROM_UNSUPPORTED, sizeof code_unsupported, code_unsupported},
    {ROM_EOI1, sizeof code_eoi1, code_eoi1},
    {ROM_EOI2, sizeof code_eoi2, code_eoi2},
    {ROM_IRET, sizeof code_iret, code_iret},
    {ROM_VECTOR, sizeof code_vector, code_vector},
};

void board_rom_fill(uint8_t *rom)
{
    uint8_t *segment = rom + BOARD_ROM_BYTES - PC_BIOS_AREA_BYTES;

    for (size_t n = 0; n < ARRAY_SIZE(rom_parts); n++)
        memcpy(segment + rom_parts[n].at, rom_parts[n].code, rom_parts[n].bytes);
}

/* ---- the steps ---- */

static void outb(struct pc *pc, uint16_t port, uint8_t value)
{
    as_store(&pc->vm->ports, port, 1, value);
}

static void post_chipset(struct pc *pc)
{
    pci_config_write(pc->pci, 0, PC_MCH_DEVFN, MCH_PCIEXBAR + 4, 0, 4);
    pci_config_write(pc->pci, 0, PC_MCH_DEVFN, MCH_PCIEXBAR, PCIEXBAR | PCIEXBAR_ENABLE, 4);
    pci_config_write(pc->pci, 0, PC_LPC_DEVFN, LPC_PMBASE, PMBASE | 1, 4);
    pci_config_write(pc->pci, 0, PC_LPC_DEVFN, LPC_ACPI_CNTL, ACPI_CNTL_ENABLE, 1);
    acpi_pm_set_sci_enabled(ich9_lpc_pm(pc->lpc), true);

    /* PIRQs alternate between interrupts 10 and 11, as SeaBIOS has it. */
    for (unsigned n = 0; n < 4; n++) {
        uint32_t irq = n < 2 ? 10 : 11;

        pci_config_write(pc->pci, 0, PC_LPC_DEVFN, LPC_PIRQA_ROUT + n, irq, 1);
        pci_config_write(pc->pci, 0, PC_LPC_DEVFN, LPC_PIRQE_ROUT + n, irq, 1);
    }
}

static void post_interrupt_controllers(struct pc *pc)
{
    /* ICW1 to ICW4: vectors 08H and 70H, cascade on input 2; all masked but
     * the cascade (and nothing runs that would want the timer). */
    outb(pc, PORT_PIC1, 0x11);
    outb(pc, PORT_PIC1 + 1, 0x08);
    outb(pc, PORT_PIC1 + 1, 0x04);
    outb(pc, PORT_PIC1 + 1, 0x01);
    outb(pc, PORT_PIC2, 0x11);
    outb(pc, PORT_PIC2 + 1, 0x70);
    outb(pc, PORT_PIC2 + 1, 0x02);
    outb(pc, PORT_PIC2 + 1, 0x01);
    outb(pc, PORT_PIC1 + 1, 0xfb);
    outb(pc, PORT_PIC2 + 1, 0xff);
    /* Level: the SCI and the PIRQs. */
    outb(pc, PORT_ELCR1, 0x00);
    outb(pc, PORT_ELCR2, 0x0e);
    /* Counter 0: mode 2, 18.2 Hz. */
    outb(pc, PORT_PIT_MODE, 0x34);
    outb(pc, PORT_PIT0, 0);
    outb(pc, PORT_PIT0, 0);
    /* Virtual wire mode by LINT0 (MultiProcessor Specification 3.6.2.2). */
    lapic_mmio_write(pc->cpu[0]->lapic, LAPIC_SVR, 0x1ff, 4);
    lapic_mmio_write(pc->cpu[0]->lapic, LAPIC_LVT_LINT0, 0x700, 4); /* ExtINT */
    lapic_mmio_write(pc->cpu[0]->lapic, LAPIC_LVT_LINT1, 0x400, 4); /* NMI */
}

static unsigned phys_mask_bits(const struct pc *pc)
{
    return pc->model.phys_bits - 1;
}

/* Write-back but for the PCI hole; the same on all processors (SDM Vol. 3,
 * 11.11.8). */
static void post_mtrrs(struct pc *pc)
{
    enum { MTRR_UC = 0, MTRR_WP = 5, MTRR_WB = 6 };
    enum { MTRR_VALID = 1 << 11, DEF_TYPE_FIXED = 1 << 10, DEF_TYPE_ENABLE = 1 << 11 };
    const uint64_t every_byte = 0x0101010101010101ull;

    for (unsigned n = 0; n < pc->cpu_count; n++) {
        struct x86_cpu *s = &pc->cpu[n]->s;

        for (unsigned i = 0; i < X86_MTRR_FIXED; i++)
            s->mtrr_fixed[i] = (i < 2    ? MTRR_WB  /* 0 to 9FFFF */
                                : i == 2 ? MTRR_UC  /* A0000 to BFFFF */
                                         : MTRR_WP) /* C0000 to FFFFF */
                               * every_byte;
        s->mtrr_base[0] = PC_HOLE_BASE | MTRR_UC;
        s->mtrr_mask[0] =
            (BITS(phys_mask_bits(pc), 12) & ~(4 * GiB - PC_HOLE_BASE - 1)) | MTRR_VALID;
        s->mtrr_def_type = DEF_TYPE_ENABLE | DEF_TYPE_FIXED | MTRR_WB;
        x86_state_changed(pc->cpu[n]);
    }
}

static void post_low_memory(struct pc *pc)
{
    struct address_space *as = &pc->vm->memory;
    uint8_t low[BDA_END] = {0};
    uint8_t ebda[PC_EBDA_BYTES] = {PC_EBDA_BYTES / KiB};
    unsigned coms = 0;

    for (unsigned n = 0; n < 256; n++) {
        uint32_t entry = ROM_IRET;

        if (n >= 0x08 && n < 0x10)
            entry = ROM_EOI1;
        else if (n >= 0x70 && n < 0x78)
            entry = ROM_EOI2;
        else if (n == 0x11)
            entry = ROM_EQUIPMENT;
        else if (n == 0x12)
            entry = ROM_MEMORY;
        else if (n == 0x18 || n == 0x19)
            entry = ROM_RESET;
        else if (n == 0x10 || (n >= 0x13 && n <= 0x15) || n == 0x17 || n == 0x1a)
            entry = ROM_UNSUPPORTED;
        le32_put(low + n * 4, ROM_SEGMENT << 16 | entry);
    }
    for (unsigned n = 0; n < PC_COM_PORTS; n++)
        if (pc->com_ports & 1u << n)
            le16_put(low + BDA_COM + 2 * coms++, com_port[n]);
    le16_put(low + BDA_EBDA_SEGMENT, PC_EBDA >> 4);
    le16_put(low + BDA_EQUIPMENT, (uint16_t)(coms << 9 | 1 << 1)); /* and an FPU */
    le16_put(low + BDA_BASE_KIB, PC_EBDA / KiB);
    le16_put(low + BDA_KEY_HEAD, 0x1e);
    le16_put(low + BDA_KEY_TAIL, 0x1e);
    le16_put(low + BDA_KEY_START, 0x1e);
    le16_put(low + BDA_KEY_END, 0x3e);
    low[BDA_KEYBOARD] = 0x10; /* 101 keys */
    as_write(as, 0, low, sizeof low);
    as_write(as, PC_EBDA, ebda, sizeof ebda);
}

/* 115200 baud, 8N1: a kernel's first words come before it has set the line up. */
static void post_serial(struct pc *pc)
{
    for (unsigned n = 0; n < PC_COM_PORTS; n++) {
        if (!(pc->com_ports & 1u << n))
            continue;
        outb(pc, com_port[n] + UART_LCR, UART_LCR_DLAB | UART_LCR_8N1);
        outb(pc, com_port[n] + UART_DLL, 1);
        outb(pc, com_port[n] + UART_DLM, 0);
        outb(pc, com_port[n] + UART_LCR, UART_LCR_8N1);
    }
}

/* The tables, and the F-segment that leads to them. */
static gpa_t post_tables(struct pc *pc)
{
    struct address_space *as = &pc->vm->memory;
    gpa_t tables = pc->low_ram_bytes - PC_TABLES_BYTES;

    pc_build_acpi(pc);
    assert(pc->acpi.bytes <= PC_TABLES_SMBIOS);
    acpi_place(&pc->acpi, tables);
    as_write(as, tables, pc->acpi.data, pc->acpi.bytes);
    pc_build_smbios(pc, tables + PC_TABLES_SMBIOS);
    assert(pc->smbios.bytes <= PC_TABLES_BYTES - PC_TABLES_SMBIOS);
    as_write(as, tables + PC_TABLES_SMBIOS, pc->smbios.data, pc->smbios.bytes);

    pci_config_write(pc->pci, 0, PC_MCH_DEVFN, MCH_PAM0, PAM0_RAM, 1);
    as_write(as, PC_BIOS_AREA, pc->rom->host + pc->rom->bytes - PC_BIOS_AREA_BYTES,
             PC_BIOS_AREA_BYTES);
    as_write(as, PC_BIOS_AREA + ROM_RSDP, pc->acpi.rsdp, ACPI_RSDP_BYTES);
    as_write(as, PC_BIOS_AREA + ROM_SMBIOS, pc->smbios.anchor, SMBIOS_ANCHOR_BYTES);
    pci_config_write(pc->pci, 0, PC_MCH_DEVFN, MCH_PAM0, PAM0_READ_ONLY, 1);
    return PC_BIOS_AREA + ROM_RSDP;
}

void board_post(struct pc *pc, gpa_t *rsdp)
{
    post_chipset(pc);
    post_interrupt_controllers(pc);
    post_mtrrs(pc);
    post_serial(pc);
    post_low_memory(pc);
    *rsdp = post_tables(pc);
}
